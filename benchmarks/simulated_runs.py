"""Write docs/examples/simulated_runs.csv: small runs as a law would give them, for trying a fit.

The runs are simulated. They follow Clark et al. 2022 (Hash layers) with a steeper interaction
(b = -0.16, c = 0.0155), so that routing helps every run up to 1B active parameters and no longer
helps at 280B, with 0.2 % of noise. Usage: python benchmarks/simulated_runs.py
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from costsim.files import write_atomically
from costsim.sparsity.fit import COLUMNS
from costsim.sparsity.forms import LOSS_FORMS, Design
from costsim.sparsity.laws import load_law

PATH = Path(__file__).resolve().parents[1] / "docs" / "examples" / "simulated_runs.csv"


def text() -> str:
    """Return the CSV."""
    law = {**load_law("clark_hash").coefficients, "b": -0.16, "c": 0.0155}
    rng = np.random.default_rng(2)
    active = np.repeat([3e7, 1e8, 3e8, 1e9], 12)
    experts = np.tile(np.repeat([1.0, 4.0, 16.0, 32.0], 3), 4)
    tokens = active * np.tile([10.0, 20.0, 60.0], 16)
    total = active * (1 + 0.66 * (experts - 1))
    loss = LOSS_FORMS["routed"](law, Design(active, total, tokens, experts))
    loss = loss * np.exp(0.002 * rng.standard_normal(len(loss)))
    lines = [",".join(COLUMNS)]
    for row in zip(active, total, experts, tokens, loss, strict=True):
        a, t, e, d, x = row
        lines.append(f"{a:.4g},{t:.4g},{e:g},1,1,{d:.4g},{x:.4f}")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(write_atomically(PATH, text()))
