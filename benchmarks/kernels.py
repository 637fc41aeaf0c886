"""Benchmarks of the kernel layer: loading a calibration, predicting, fitting.

Run with ``python benchmarks/kernels.py``; prints one line a figure.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from costsim.hardware.loader import load_hardware
from costsim.kernels import store
from costsim.kernels.calibration import Calibration
from costsim.kernels.efficiency import COLLECTIVES
from costsim.kernels.store import load_calibration
from costsim.kernels.surface_fit import fit_surface, kernels
from costsim.kernels.table import make_table

POINTS = 200_000


def best(call: Callable[[], Any], repeats: int = 7) -> float:
    """Return the shortest of several timings [s]."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times)


def loading_s(name: str) -> float:
    """Return the time to read a calibration's file."""
    def load() -> Calibration:
        store._read.cache_clear()
        return store.read_calibration(name)

    return best(load)


def shapes(rng: np.random.Generator) -> dict[str, dict[str, Any]]:
    """Return a large call of each operator, every size an array."""
    def sizes(low: float, high: float) -> Any:
        return np.round(np.exp2(rng.uniform(np.log2(low), np.log2(high), POINTS)))

    head = {"heads": 32.0, "kv_heads": 8.0, "head_dim": 128.0, "v_head_dim": 128.0}
    return {
        "gemm": {"m": sizes(1, 8192), "n": sizes(512, 32768), "k": sizes(512, 32768)},
        "attention_prefill": {"batch": sizes(1, 64), "new_tokens": sizes(16, 8192),
                              "context": sizes(1, 8192), **head},
        "attention_decode": {"batch": sizes(1, 512), "context": sizes(16, 65536), **head},
        "attention_prefill window": {
            "batch": sizes(1, 64), "new_tokens": sizes(16, 8192), "context": 0.0,
            "window": 1024.0, **head},
        "mla_prefill": {"batch": sizes(1, 64), "new_tokens": sizes(16, 8192), "context": 0.0,
                        "heads": 16.0, "nope_head_dim": 128.0, "rope_head_dim": 64.0,
                        "v_head_dim": 128.0, "kv_lora_rank": 512.0},
        "mla_decode": {"batch": sizes(1, 512), "context": sizes(16, 65536), "heads": 16.0,
                       "kv_lora_rank": 512.0, "rope_head_dim": 64.0},
        "linear_attention": {"batch": sizes(1, 512), "new_tokens": 1.0, "key_heads": 16.0,
                             "value_heads": 32.0, "key_dim": 128.0, "value_dim": 128.0,
                             "kind": "gated_deltanet"},
        "moe": {"tokens": sizes(1, 8192), "hidden": 4096.0, "width": 1536.0, "top_k": 8.0,
                "experts": 128.0, "ep": 1.0, "moe_tp": 1.0},
        **{name: {"ranks": 8.0, "message_bytes": sizes(1e3, 1e9)} for name in COLLECTIVES},
        "elementwise": {"bytes": sizes(1e3, 1e9)},
    }


def main() -> None:
    """Print the figures."""
    hardware = load_hardware("h100_sxm")
    calibration = load_calibration(hardware).for_engine("vllm")
    print(f"load a calibration: {loading_s('h100_sxm') * 1e3:.1f} ms")
    for operator, shape in shapes(np.random.default_rng(0)).items():
        name = operator.split()[0]
        taken = best(lambda o=name, s=shape: calibration.latency(o, hardware, **s), 3)
        print(f"{operator}: {taken / POINTS * 1e6:.3f} us a point in calls of {POINTS:,}")
    mesh = {"m": np.arange(1.0, 513.0)[:, None], "n": 6144.0, "k": np.array([[4096.0]])}
    taken = best(lambda: calibration.latency("gemm", hardware, **mesh))
    one = {"m": 64.0, "n": 6144.0, "k": 4096.0}
    single = best(lambda: calibration.latency("gemm", hardware, **one))
    print(f"gemm: {taken / 512 * 1e6:.3f} us a point in an open mesh of 512, "
          f"{single * 1e6:.0f} us a single call")
    print(f"fit: {fitting_s(hardware):.2f} s for 5,000 rows of GEMM")


def fitting_s(hardware: Any) -> float:
    """Return the time to fit a table of 5,000 rows."""
    rng = np.random.default_rng(0)
    m, n, k = (np.exp2(rng.uniform(0, 14, 5001)) for _ in range(3))
    seconds = np.maximum(2 * m * n * k / 6e14, 2 * (m * k + k * n + m * n) / 2.7e12) + 3e-6
    (kernel,) = kernels(make_table("gemm", {"m": m, "n": n, "k": k}, seconds))
    return best(lambda: fit_surface(kernel, hardware), 2)


if __name__ == "__main__":
    main()
