"""What an inference engine adds to the kernels: its flags, overheads and reserves."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from costsim.ops.listed import ListedOperator


@dataclass(frozen=True)
class Speculation:
    """Draft-and-verify decoding.

    Args:
        method: ``mtp``, ``eagle`` or ``draft_model``.
        draft_tokens: γ, tokens drafted per verify step.
        acceptance: α, probability that a drafted token is accepted.
        draft_model: name of the draft model for ``draft_model``.
    """

    method: str
    draft_tokens: int
    acceptance: float
    draft_model: str = ""


@dataclass(frozen=True)
class Routing:
    """How tokens spread over experts.

    Args:
        kind: ``uniform``, ``power_law`` (p_i ∝ i^-alpha), ``measured`` or ``balanced`` (uniform
            and without chance fluctuations).
        alpha: exponent of the power law.
        counts: measured tokens per expert.
        replicated_experts: extra copies of the hottest experts, over the whole layer.
    """

    kind: str = "uniform"
    alpha: float = 0.0
    counts: tuple[float, ...] = ()
    replicated_experts: int = 0


@dataclass(frozen=True)
class EngineSettings:
    """Flags and overheads of an engine; the presets are TOML files in ``engine/presets``.

    Args:
        name, version: engine and the version the figures belong to.
        host_step_s: host time of one step that is not hidden behind the accelerator.
        host_request_s: the same per running request and step.
        host_layer_curve: host time of a layer as pairs of bytes moved in it and seconds, where it
            depends on them: what streams through a processor's caches evicts the host's own code
            and data. It comes in place of ``layer_gap_s``; between the pairs it is linear.
        packed_copies: times that a GEMM of several rows copies its weights before it multiplies
            (into panels, on a CPU); they too stream through the caches.
        cuda_graphs: decode steps replay captured graphs; else every kernel is launched.
        chunked_prefill: prefill chunks share steps with decodes.
        max_num_batched_tokens: token budget of a step.
        max_num_seqs: requests that run at once, per data-parallel rank.
        memory_utilization: share of the memory the engine may use.
        reserve_bytes: workspace, graphs and communication buffers per accelerator.
        kv_block_tokens: tokens per KV block.
        overlap_communication: share of all-to-all and all-reduce time hidden behind compute.
        prefix_hit_share: share of prompt tokens found in the prefix cache.
        prefill_interference: extra decode time per unit of prefill time in mixed steps.
        speculation: draft-and-verify decoding, None for none.
        routing: expert load.
        lora_rank, lora_adapters: adapters active in a batch; 0 for none.
        weight_offload_share, kv_offload_share: kept in host memory.
        context_spread: decode attention time over that of equal contexts (split-KV imbalance).
        kernel_launch_s: host time to start one kernel without CUDA graphs.
        kernel_time_factor: time of kernels in the engine's captured decode graphs over that of the
            same kernels measured one by one (dependent launches overlap, caches stay warm);
            attention, whose kernels are long, keeps its time.
        kernel_time_factor_fp4: the same on accelerators with native fp4 (from Blackwell on, where
            engines let a kernel start before the last has ended); negative: as the other.
        layer_gap_s: time of a layer that no measured kernel covers: gaps between dependent
            kernels, small fused operations.
        expert_gap_s: what a layer with experts takes besides: sorting and counting of tokens.
        exchange_gap_s: what it takes besides that where attention is data parallel: preparing the
            exchange of tokens, ranks waiting for one another.
        parallel_shared_experts: shared experts run beside the routed ones in decode steps.
        prompt_latent_s: host time to start the kernels of a layer with latent or linear attention,
            which are many and small, in steps with prompts, which replay no graph; such a step
            takes no less.
        draft_host_s, draft_request_s: host time that drafting adds to a verify step, and for each
            running request.
        poll_steps: steps between two looks for new requests.
        split_prompts: a prompt may be cut to fill a step's budget; False: only prompts longer than
            the budget are.
        hold_steps, hold_share: steps that prompts are held back at most, until a step has this
            share of its token budget (TensorRT-LLM's batch waiting); 0 for not at all.
        rank_hold_steps: steps that prompts are held back at most until every data-parallel rank
            has one (TensorRT-LLM's balance of attention ranks).
        frontend_s: from the client's request to the scheduler and back to its first token.
        tokenize_s: time of the front end for each token of a prompt, one prompt after another.
        log_error_tpot, log_error_ttft: standard deviation of log(actual / predicted) that the
            engine adds to the kernels' own, from measured serving points.
        sync_step_s, sync_request_s: host time of a step and of each running request in it that is
            not hidden where ``async_scheduling`` is off.
        async_scheduling: a step is scheduled while the one before it runs, so that a request that
            arrives during a step misses the next one too.
        prefix_caching: blocks of finished requests are kept and found again by their hashes.
        log_error_pools_tpot, log_error_pools_ttft: the same of separate prefill and decode pools;
            negative: as the others.
        log_error_drafting: what drafting adds to that of TPOT (acceptance differs by text).
        memory_rule: what ``memory_utilization`` is a share of: ``total`` (vLLM: weights,
            activations and cache together within that share of the memory), ``static`` (SGLang:
            weights and cache within it, activations in the rest) or ``free`` (TensorRT-LLM: the
            cache takes that share of what weights and activations leave).
        kernels: engine whose measured kernels it runs; its own name if empty.
        operators: what the engine runs beside (or instead of) the operators of `costsim.ops`.
        replaces: names of those that it does not run.
    """

    name: str = "generic"
    version: str = ""
    host_step_s: float = 0.0
    host_request_s: float = 0.0
    cuda_graphs: bool = True
    chunked_prefill: bool = True
    max_num_batched_tokens: int = 8192
    max_num_seqs: int = 1024
    memory_utilization: float = 0.9
    reserve_bytes: float = 0.0
    kv_block_tokens: int = 16
    overlap_communication: float = 0.0
    prefix_hit_share: float = 0.0
    prefill_interference: float = 0.0
    speculation: Speculation | None = None
    routing: Routing = field(default_factory=Routing)
    lora_rank: int = 0
    lora_adapters: int = 0
    weight_offload_share: float = 0.0
    kv_offload_share: float = 0.0
    context_spread: float = 1.0
    kernel_launch_s: float = 5e-6
    memory_rule: str = "total"
    async_scheduling: bool = False
    sync_step_s: float = 0.0
    sync_request_s: float = 0.0
    prefix_caching: bool = False
    kernel_time_factor: float = 1.0
    kernel_time_factor_fp4: float = -1.0
    layer_gap_s: float = 0.0
    expert_gap_s: float = 0.0
    exchange_gap_s: float = 0.0
    parallel_shared_experts: bool = False
    prompt_latent_s: float = 0.0
    draft_host_s: float = 0.0
    draft_request_s: float = 0.0
    poll_steps: int = 1
    split_prompts: bool = True
    hold_steps: int = 0
    hold_share: float = 0.0
    rank_hold_steps: int = 0
    frontend_s: float = 0.0
    tokenize_s: float = 0.0
    log_error_tpot: float = 0.05
    log_error_ttft: float = 0.25
    log_error_pools_tpot: float = -1.0
    log_error_pools_ttft: float = -1.0
    log_error_drafting: float = 0.0
    host_layer_curve: tuple[tuple[float, float], ...] = ()
    packed_copies: float = 0.0
    kernels: str = ""
    operators: tuple[ListedOperator, ...] = ()
    replaces: frozenset[str] = frozenset()

    def log_errors(self, pools: bool = False) -> tuple[float, float]:
        """Return what the engine adds to the log errors of TPOT and TTFT.

        Args:
            pools: with separate prefill and decode pools.
        """
        tpot, ttft = self.log_error_tpot, self.log_error_ttft
        if pools and self.log_error_pools_tpot >= 0:
            tpot = self.log_error_pools_tpot
        if pools and self.log_error_pools_ttft >= 0:
            ttft = self.log_error_pools_ttft
        drafting = self.log_error_drafting if self.speculation else 0.0
        return math.hypot(tpot, drafting), ttft
