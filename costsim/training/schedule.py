"""How long a pipeline takes over its micro-batches: bubbles of each schedule."""

from __future__ import annotations

from typing import Any

import numpy as np

from costsim.errors import unknown_name


def bubble_time(
    schedule: str, stages: Any, forward_s: Any, backward_s: Any, virtual_stages: Any = 1
) -> Any:
    """Return the seconds of a step in which a stage waits for others.

    GPipe (Huang et al. 2019) and 1F1B (Narayanan et al. 2021): (p−1)(F+B); interleaved with v
    chunks a stage: (p−1)(F+B)/v; zero-bubble ZB-1P (Qi et al. 2023): (p−1)(F+B−2W); DualPipe
    (DeepSeek-V3, arXiv:2412.19437, table 2): (p/2−1)(F&B+B−3W), F&B being one of each at once.
    W, the weights' gradients, is half of the backward pass.

    Args:
        schedule: one of `costsim.training.plan.SCHEDULES`.
        stages: p.
        forward_s, backward_s: of one micro-batch through one stage.
        virtual_stages: v, interleaved only.
    """
    p = np.asarray(stages, float)
    both, weights = forward_s + backward_s, 0.5 * backward_s
    if schedule in ("gpipe", "1f1b"):
        return (p - 1.0) * both
    if schedule == "interleaved":
        return (p - 1.0) * both / np.asarray(virtual_stages, float)
    if schedule == "zero_bubble":
        return (p - 1.0) * np.maximum(both - 2.0 * weights, 0.0)
    if schedule == "dualpipe":
        return np.maximum(p / 2.0 - 1.0, 0.0) * np.maximum(both + backward_s - 3.0 * weights, 0.0)
    raise unknown_name("pipeline schedule", schedule, ("gpipe", "1f1b", "interleaved",
                                                       "zero_bubble", "dualpipe"))


def in_flight(schedule: str, stages: Any, micro_batches: Any, virtual_stages: Any = 1) -> Any:
    """Return how many micro-batches' activations the fullest stage holds, in its own layers.

    1F1B p; interleaved p(1 + (p−1)/(p·v)) (Korthikanti et al. 2022, section 4.2.3); GPipe all;
    DualPipe p + 1 (its table 2); never more than there are.
    """
    p, m = np.asarray(stages, float), np.asarray(micro_batches, float)
    if schedule == "gpipe":
        return m
    if schedule == "interleaved":
        held = p * (1.0 + (p - 1.0) / (p * np.asarray(virtual_stages, float)))
        return np.where(p > 1, np.minimum(held, m + p - 1.0), 1.0)
    return np.minimum(p + (1.0 if schedule == "dualpipe" else 0.0), np.maximum(m, 1.0))
