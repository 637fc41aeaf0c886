"""Time lost to failures and checkpoints."""

from __future__ import annotations

from typing import Any

import numpy as np

from costsim.training.plan import Failures


def optimal_interval_s(failures: Failures, accelerators: Any) -> Any:
    """Return the checkpoint interval that loses least time: √(2·δ·M) (Young 1974, Daly 2006).

    Args:
        failures: δ is ``checkpoint_s``; M the run's mean time between failures.
        accelerators: of the run, any of which stops it.
    """
    mean = failures.mtbf_h * 3600.0 / np.asarray(accelerators, float)
    return np.sqrt(2.0 * failures.checkpoint_s * mean)


def useful_share(failures: Failures | None, accelerators: Any) -> Any:
    """Return the share of the time in which the run makes progress.

    Lost are checkpoints δ/τ, work since the last one (τ+δ)/2 and the restart R per failure.

    Args:
        failures: None for a run without any.
        accelerators: of the run.
    """
    if failures is None:
        return np.ones_like(np.asarray(accelerators, float))
    mean = failures.mtbf_h * 3600.0 / np.asarray(accelerators, float)
    interval = failures.checkpoint_interval_s
    tau = optimal_interval_s(failures, accelerators) if interval is None else interval
    saving = failures.checkpoint_s / (tau + failures.checkpoint_s)
    lost = ((tau + failures.checkpoint_s) / 2.0 + failures.restart_s) / mean
    return (1.0 - saving) / (1.0 + lost)
