"""Which kernels the harness measures: shapes of models that are served."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from costsim.kernels.measure.cases import Case, Grid, all_cases, in_turn

# Projections of Llama-3.1-8B and -70B (TP4), Qwen3-30B-A3B and two squares: n, k.
WEIGHTS = ((6144, 4096), (4096, 4096), (28672, 4096), (4096, 14336), (128256, 4096),
           (2560, 8192), (14336, 8192), (8192, 7168), (5120, 2048), (2048, 4096), (8192, 8192),
           (1024, 1024))
FULL = Grid(
    rows=(1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 2048, 4096,
          8192),
    weights=WEIGHTS, heads=((32, 8, 128), (32, 4, 128), (8, 1, 128), (16, 16, 128), (16, 8, 64)),
    batches=(1, 4, 16, 64, 256), lengths=(16, 64, 256, 1024, 2048, 4096, 8192),
    contexts=(128, 512, 1024, 2048, 4096, 8192, 32768),
    experts=((2048, 768, 128, 8), (4096, 1536, 128, 8), (4096, 14336, 8, 2), (2880, 2880, 32, 4)),
    tokens=(1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 4096),
    bytes=tuple(2**i for i in range(14, 31)), flop=4e12, scores_bytes=2e10,
)
QUICK = replace(
    FULL, rows=(1, 4, 16, 64, 128, 256, 512, 1024, 4096), weights=WEIGHTS[:6],
    heads=((32, 8, 128), (32, 4, 128)), batches=(1, 16, 64), lengths=(64, 512, 2048),
    contexts=(512, 2048, 8192), experts=((2048, 768, 128, 8), (4096, 14336, 8, 2)),
    tokens=(1, 8, 64, 256, 1024), bytes=tuple(4**i for i in range(7, 15)), flop=1e12,
)
# To test the harness on a CPU; its times say nothing about anything.
TINY = Grid(
    rows=(1, 16), weights=((64, 32), (32, 64)), heads=((4, 2, 16),), batches=(1, 2),
    lengths=(4, 8), contexts=(8, 16), experts=((32, 16, 4, 2),), tokens=(1, 4),
    bytes=(1 << 14, 1 << 16), flop=1e8,
)


def cases(grid: Grid, dtypes: Sequence[str]) -> list[Case]:
    """Return the harness's cases, kernels in turn.

    fp8 stands for GEMMs only: SDPA and the grouped product take bf16.
    """
    found = all_cases(grid, ("bf16",))
    if "fp8" in dtypes:
        found += [Case("gemm", {**c.shape, "dtype": "fp8", "activation": "fp8"})
                  for c in found if c.operator == "gemm"]
    return in_turn(found)
