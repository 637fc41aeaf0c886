"""What a training run is asked to do: tokens, batch, layout, memory saving, schedule."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from costsim.engine.precision import Precision
from costsim.errors import InputError, unknown_name

RECOMPUTE = ("none", "selective", "full")
# What the model leaves out (throttling under sustained load, stragglers, data loading, kernels of
# other years): exp of the mean of log(measured / modelled) over the even half of the runs of
# published layout, one vote a family, less 1. docs/training.md; a test fits it anew.
UNEXPLAINED = 0.156
SCHEDULES = ("gpipe", "1f1b", "interleaved", "zero_bubble", "dualpipe")


@dataclass(frozen=True)
class TrainingLayout:
    """How one training step is spread; each field may be an integer array for a search.

    The run holds ``tp · cp · pp · dp`` accelerators, tensor parallelism innermost and pipeline
    stages outermost. Experts are spread ``ep`` ways over the tensor- and data-parallel ranks.

    Args:
        tp, pp, dp, cp, ep: tensor, pipeline, data, context and expert parallelism.
        micro_batch: sequences of one micro-batch.
        virtual_stages: chunks of layers each stage holds (interleaved schedule).
    """

    tp: Any = 1
    pp: Any = 1
    dp: Any = 1
    cp: Any = 1
    ep: Any = 1
    micro_batch: Any = 1
    virtual_stages: Any = 1

    @property
    def accelerators(self) -> Any:
        """Accelerators of the run."""
        return self.tp * self.pp * self.dp * self.cp

    @property
    def expert_groups(self) -> Any:
        """Data-parallel ranks that share one set of experts."""
        return np.maximum(np.asarray(self.ep, float) / self.tp, 1.0)

    def __str__(self) -> str:
        names = ("tp", "cp", "ep", "pp", "dp")
        shown = [f"{n.upper()}{getattr(self, n)}" for n in names
                 if np.any(np.asarray(getattr(self, n)) != 1)]
        chunks = f" v{self.virtual_stages}" if np.any(np.asarray(self.virtual_stages) != 1) else ""
        return (" ".join(shown) or "one accelerator") + f" mb{self.micro_batch}" + chunks


@dataclass(frozen=True)
class Failures:
    """How often accelerators fail and what a failure costs.

    Args:
        mtbf_h: hours between failures of one accelerator. 50,700 h: 419 unexpected interruptions
            in 54 days of 16,384 H100 (Llama 3, arXiv:2407.21783, table 5).
        checkpoint_s: time the run stands still to save a checkpoint.
        restart_s: from a failure to the next useful step.
        checkpoint_interval_s: None for the optimum of Young and Daly.
    """

    mtbf_h: float = 50_700.0
    checkpoint_s: float = 20.0
    restart_s: float = 900.0
    checkpoint_interval_s: float | None = None


@dataclass(frozen=True)
class TrainingPlan:
    """A training run.

    Args:
        tokens: D, tokens to train on.
        global_batch_tokens: tokens of one optimiser step.
        sequence: tokens of one sequence.
        layout: how it is spread.
        zero: ZeRO stage; 0 keeps everything on every data-parallel rank, 1 shards the optimiser
            state, 2 gradients too, 3 weights too.
        recompute: activations computed again in the backward pass: ``none``, ``selective``
            (attention only; latent attention's expansion too) or ``full`` (only the input of each
            layer is kept).
        schedule: ``gpipe``, ``1f1b``, ``interleaved``, ``zero_bubble`` (ZB-1P) or ``dualpipe``.
        precision: data types of GEMMs and messages; bf16 unless said.
        sequence_parallel: norms and residuals sharded over tp (Korthikanti et al. 2022).
        fused_attention: flash attention; else scores are written to memory, unmasked half and
            all, as before 2022.
        gradient_bytes, weight_bytes, optimizer_bytes: per parameter; Adam in mixed precision
            holds fp32 gradients, 16-bit weights, and fp32 weights with two moments.
        activation_bytes: of one activation kept for the backward pass; 1 where GEMM inputs are kept
            in fp8.
        overlap_model: share of tensor-, expert- and context-parallel traffic hidden behind
            compute, 0 to 1.
        overlap_data: gradient and weight traffic may hide behind one micro-batch's passes.
        multi_token_prediction: train the model's MTP layers too.
        failures: None for a run without any.
        unexplained: time that measured runs take over the sum of their kernels, messages and
            bubbles, as a share of it; 0 for what kernels alone allow.
    """

    tokens: float
    global_batch_tokens: float
    sequence: int
    layout: TrainingLayout = field(default_factory=TrainingLayout)
    zero: int = 1
    recompute: str = "none"
    schedule: str = "1f1b"
    precision: Precision = field(default_factory=Precision)
    sequence_parallel: bool = True
    fused_attention: bool = True
    gradient_bytes: float = 4.0
    weight_bytes: float = 2.0
    optimizer_bytes: float = 12.0
    activation_bytes: float = 2.0
    overlap_model: float = 0.0
    overlap_data: bool = True
    multi_token_prediction: bool = True
    failures: Failures | None = field(default_factory=Failures)
    unexplained: float = UNEXPLAINED

    def __post_init__(self) -> None:
        _check(self)

    @property
    def micro_batches(self) -> Any:
        """Micro-batches each pipeline works through in a step."""
        sequences = self.global_batch_tokens / self.sequence
        return sequences / (np.asarray(self.layout.dp, float) * self.layout.micro_batch)

    @property
    def steps(self) -> float:
        """Optimiser steps of the run."""
        return self.tokens / self.global_batch_tokens

    def with_changes(self, **changes: Any) -> TrainingPlan:
        """Return a copy with some parts changed."""
        return replace(self, **changes)


def _check(plan: TrainingPlan) -> None:
    for name in ("tokens", "global_batch_tokens", "sequence"):
        value = getattr(plan, name)
        if not (np.isfinite(value) and value > 0):
            raise InputError(f"training plan: {name} = {value!r} must be a number above 0")
    if plan.zero not in (0, 1, 2, 3):
        raise InputError(f"training plan: zero = {plan.zero!r}; allowed: 0, 1, 2, 3")
    if plan.recompute not in RECOMPUTE:
        raise unknown_name("recompute", str(plan.recompute), RECOMPUTE)
    if plan.schedule not in SCHEDULES:
        raise unknown_name("pipeline schedule", str(plan.schedule), SCHEDULES)
    if not 0.0 <= plan.unexplained < 10.0:
        raise InputError(f"training plan: unexplained = {plan.unexplained!r}; allowed: 0 to 10")
    if not 0.0 <= plan.overlap_model <= 1.0:
        raise InputError(f"training plan: overlap_model = {plan.overlap_model!r}; allowed: 0 to 1")
    for name in ("tp", "pp", "dp", "cp", "ep", "micro_batch", "virtual_stages"):
        value = np.asarray(getattr(plan.layout, name), float)
        if not np.all(np.isfinite(value) & (value >= 1) & (value == np.floor(value))):
            raise InputError(f"training layout: {name} = {getattr(plan.layout, name)!r} must be "
                             "a whole number of at least 1")
