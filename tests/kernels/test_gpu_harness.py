"""The GPU harness, on the CPU: every kernel runs, computes what it should, and is recorded."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

torch = pytest.importorskip("torch", reason="extra 'measure' (PyTorch) not installed")

from costsim.kernels.gpu_harness import extras, grid, steps  # noqa: E402
from costsim.kernels.gpu_harness.backend import GpuBackend  # noqa: E402
from costsim.kernels.gpu_harness.captured import calls_in_graph  # noqa: E402
from costsim.kernels.gpu_harness.decoder import DENSE, MIXTURE, Decoder, Step, grouped  # noqa: E402
from costsim.kernels.measure.extras import measure_extras  # noqa: E402
from costsim.kernels.measure.journal import Journal  # noqa: E402
from costsim.kernels.measure.machine import this_machine  # noqa: E402
from costsim.kernels.measure.run import measure  # noqa: E402
from costsim.reports.tables_calibration import _extras  # noqa: E402

SMALL = Decoder("small", 2, 64, 4, 2, 16, 97, 96)
SMALL_MIXTURE = Decoder("small-mixture", 2, 64, 4, 2, 16, 97, 32, 8, 2)
TINY_PLAN = extras.Plan(
    launches=20, norm_bytes=(1 << 14,), attention=extras._attention(4, 2, 16, True),
    dispatch=[(4, 16, 4, 2)], sparse=((128, 128),), quick=True, models=(SMALL, SMALL_MIXTURE),
    points=((1, 8), (3, 8)))


def test_every_kernel_of_the_grid_becomes_a_row_of_a_table() -> None:
    backend = GpuBackend("cpu")
    cases = grid.cases(grid.TINY, backend.dtypes)
    assert {c.operator for c in cases} == {
        "gemm", "attention_prefill", "attention_decode", "moe", "elementwise"}
    found = measure(backend, cases, this_machine(), Journal(None, {}), 0.0, threads=1)
    rows = sum(len(t) for t in found.tables)
    assert rows + len(found.refused) == len(cases)
    assert {r["what"].split("{")[0] for r in found.refused} <= {"gemm"}  # no fp8 on some CPUs
    assert all((t.latency_s > 0).all() and t.device == "CPU" for t in found.tables)
    (gemm,) = (t for t in found.tables if t.operator == "gemm")
    assert "bf16" in gemm.shape["dtype"]


def test_refused_kernels_are_kept_with_their_reason_and_not_tried_again() -> None:
    class Refusing(GpuBackend):
        calls = 0

        def prepare(self, operator: str, shape: Any) -> Any:
            if operator == "moe":
                Refusing.calls += 1
                raise RuntimeError("no kernel image\nfor this device")
            return super().prepare(operator, shape)

    backend, journal = Refusing("cpu"), Journal(None, {})
    cases = [c for c in grid.cases(grid.TINY, ("bf16",)) if c.operator in ("moe", "elementwise")]
    for _ in range(2):
        found = measure(backend, cases, this_machine(), journal, 0.0, threads=1)
        assert {r["why"] for r in found.refused} == {"no kernel image"}
        assert [t.operator for t in found.tables] == ["elementwise"]
    assert Refusing.calls == len(found.refused)


def _lines(table: Any) -> list[str]:
    """Return what a table shows."""
    console = Console(width=160, record=True, file=io.StringIO())
    console.print(table)
    return console.export_text().splitlines()


def test_every_extra_part_returns_rows_and_is_not_run_twice(tmp_path: Path) -> None:
    backend = GpuBackend("cpu")
    journal = Journal.open(tmp_path / "j.jsonl", {"of": "this"})
    rows = measure_extras(extras.parts(backend, TINY_PLAN), journal)
    operators = {r["operator"] for r in rows}
    assert operators >= {"launch", "rms_norm", "attention_prefill", "attention_decode",
                         "expert_dispatch", "decode_step"}
    assert all(r["latency_s"] > 0 for r in rows)
    shown = [line for table in _extras(rows) for line in _lines(table)]
    for part in ("small-mixture", "2 of 4", "round trip", "top 2 of 4", "flash"):
        assert any(part in line for line in shown), part
    again = Journal.open(tmp_path / "j.jsonl", {"of": "this"})

    def never() -> list[dict[str, Any]]:
        raise AssertionError("measured again")

    names = [name for name, _ in extras.parts(backend, TINY_PLAN)]
    assert measure_extras([(name, never) for name in names], again) == rows


@pytest.mark.parametrize("model", [SMALL, SMALL_MIXTURE])
def test_a_decode_step_returns_a_token_of_each_request(model: Decoder) -> None:
    step = Step(torch, model, 3, 8, "cpu")
    tokens = step.run()
    assert tokens.shape == (3,) and int(tokens.max()) < model.vocabulary
    torch.testing.assert_close(step.run(), tokens)  # caches are written at the same place


def test_the_grouped_product_is_that_of_each_expert() -> None:
    rows, weights = torch.randn(7, 5), torch.randn(3, 5, 4)
    ends = torch.tensor([2, 2, 7], dtype=torch.int32)
    found = grouped(torch)(rows, weights, ends)
    wanted = torch.cat([rows[:2] @ weights[0], rows[2:] @ weights[2]])
    torch.testing.assert_close(found, wanted)


def test_routed_experts_are_those_of_a_loop_over_tokens() -> None:
    torch.manual_seed(0)
    step = Step(torch, SMALL_MIXTURE, 5, 8, "cpu")
    layer = step.layers[0]
    x = torch.randn(5, 64).to(torch.bfloat16)
    with torch.inference_mode():
        found = step._feed(layer, x).float()
        scores = (x @ layer["router"].T).float().softmax(-1)
        wanted = torch.zeros(5, 64)
        for token in range(5):
            weight, chosen = scores[token].topk(2)
            for w, e in zip(weight / weight.sum(), chosen, strict=True):
                gate, inner = (layer["up"][e] @ x[token]).float().chunk(2)
                inside = (torch.nn.functional.silu(gate) * inner).to(torch.bfloat16)
                wanted[token] += w * (layer["down"][e] @ inside).float()
    torch.testing.assert_close(found, wanted, atol=0.05, rtol=0.05)


def test_the_shapes_are_those_of_the_models_they_are_named_after() -> None:
    # Embedding, head and matrices; norms are left out.
    assert pytest.approx(DENSE.parameters, rel=1e-4) == 8_030_261_248
    assert pytest.approx(MIXTURE.parameters, rel=1e-4) == 30_532_122_624
    assert DENSE.cache_elements(1, 1) * 2 == 131_072


def test_steps_that_do_not_fit_are_left_out_with_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps, "_fits", lambda *_: False)
    skipped: list[dict[str, str]] = []
    found = list(steps.step_rows(GpuBackend("cpu"), 0.0, [SMALL], ((1, 8),), skipped))
    assert not found and "memory" in skipped[0]["why"]


def test_graphs_hold_milliseconds_of_calls_and_whole_turns_of_the_weights() -> None:
    assert calls_in_graph(1e-6, 1) == 2000
    assert calls_in_graph(1e-3, 4) == 4
    assert calls_in_graph(1.0, 1) == 1
    assert calls_in_graph(1e-4, 7) % 7 == 0


def test_half_of_each_four_weights_are_dropped_and_blocks_stay_whole() -> None:
    from costsim.kernels.gpu_harness.sparse import _blocks

    weights, x = torch.randn(64, 64), torch.randn(3, 64)
    call = _blocks(torch, x, weights, 16, 1.0)
    np.testing.assert_allclose(call().numpy(), (weights @ x.T).numpy(), atol=1e-4)
