"""Readers of benchmark results: one load, four tools, the same run; and what they trip over."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import benchmark_files as files
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from costsim.errors import InputError
from costsim.validation.benchmarks.aiperf import read_summary
from costsim.validation.benchmarks.lists import read_flat
from costsim.validation.benchmarks.read import objects, read_file, read_runs
from costsim.validation.benchmarks.run import Run

LOAD = files.closed_loop(8, 1024, 256, 0.12, 0.011, spread=0.1)


def _same(run: Run, load: Any = LOAD) -> None:
    assert run.concurrency == load.concurrency
    assert run.requests == len(load.ttft_s)
    assert run.isl == pytest.approx(1024) and run.osl == pytest.approx(256)
    assert run.ttft_s.mean == pytest.approx(load.ttft_s.mean(), rel=1e-6)
    assert run.tpot_s.mean == pytest.approx(load.tpot_s.mean(), rel=1e-6)
    assert run.e2e_s.central == pytest.approx(load.e2e_s.mean(), rel=2e-3)
    assert run.output_tokens_per_s == pytest.approx(
        load.output_tokens.sum() / load.duration_s, rel=1e-6)
    assert run.in_flight == pytest.approx(load.e2e_s.sum() / load.duration_s, rel=2e-3)


def test_each_tool_gives_the_same_run(tmp_path: Path) -> None:
    _same(read_file(files.write(tmp_path / "vllm.json", files.vllm(LOAD)))[0])
    _same(read_file(files.write(tmp_path / "sglang.jsonl", files.sglang(LOAD)))[0])
    _same(read_file(files.write(tmp_path / "aiperf.json", files.aiperf(LOAD)))[0])
    _same(read_file(files.write(tmp_path / "guidellm.json", files.guidellm([LOAD])))[0])


def test_single_requests_are_read_where_a_file_has_them(tmp_path: Path) -> None:
    files.write(tmp_path / "profile_export.jsonl", *files.aiperf_records(LOAD))
    for name, row in (("v.json", files.vllm(LOAD, detailed=True)),
                      ("profile_export_aiperf.json", files.aiperf(LOAD)),
                      ("g.json", files.guidellm([LOAD]))):
        detail = read_file(files.write(tmp_path / name, row))[0].detail
        assert detail is not None and len(detail) == len(LOAD.ttft_s), name
        assert np.allclose(detail.tpot_s, LOAD.tpot_s), name


def test_aiperf_records_alone_give_a_run(tmp_path: Path) -> None:
    path = files.write(tmp_path / "profile_export.jsonl", *files.aiperf_records(LOAD, failed=3))
    run, = read_file(path)
    assert run.failed == 3 and run.requests == len(LOAD.ttft_s)
    assert run.tpot_s.mean == pytest.approx(LOAD.tpot_s.mean(), rel=1e-6)
    assert run.concurrency == pytest.approx(8, abs=1)


@settings(max_examples=30, deadline=None)
@given(ttft=st.floats(1e-3, 30), tpot=st.floats(1e-4, 1), users=st.integers(1, 32),
       unit=st.sampled_from(["ns", "us", "ms", "s"]))
def test_the_unit_does_not_matter(ttft: float, tpot: float, users: int, unit: str) -> None:
    load = files.closed_loop(users, 512, 64, ttft, tpot, count=4 * users)
    usual, other = (read_summary(files.aiperf(load, u), "x") for u in ("ms", unit))
    for name in ("ttft_s", "tpot_s", "e2e_s"):
        for part in ("mean", "p50", "p99"):
            assert getattr(getattr(other, name), part) == pytest.approx(
                getattr(getattr(usual, name), part), rel=1e-9)
    assert other.in_flight == pytest.approx(usual.in_flight or 0, rel=1e-9)


def test_missing_e2el_is_derived_and_said_so() -> None:
    run = read_flat(files.vllm(LOAD), "f")
    assert run.e2e_s.central == pytest.approx(
        LOAD.ttft_s.mean() + 255 * LOAD.tpot_s.mean(), rel=1e-6)
    assert "end-to-end" in run.notes[0]
    given_ = read_flat(files.vllm(LOAD, mean_e2el_ms=1234.0), "f")
    assert given_.e2e_s.central == pytest.approx(1.234) and not given_.notes


def test_guidellm_tpot_is_not_its_time_per_output_token(tmp_path: Path) -> None:
    report = files.guidellm([LOAD])
    run, = read_file(files.write(tmp_path / "a.json", report))
    inclusive = float(np.mean(LOAD.e2e_s / LOAD.output_tokens))
    assert inclusive > 1.03 * LOAD.tpot_s.mean()
    assert run.tpot_s.mean == pytest.approx(LOAD.tpot_s.mean(), rel=1e-6)
    # Where only the inclusive one is there, TTFT is taken out of it.
    del report["benchmarks"][0]["metrics"]["inter_token_latency_ms"]
    run, = read_file(files.write(tmp_path / "b.json", report))
    assert run.tpot_s.mean == pytest.approx(LOAD.tpot_s.mean(), rel=1e-3)
    assert "includes TTFT" in " ".join(run.notes)


def test_infinity_stands_bare_or_as_a_word(tmp_path: Path) -> None:
    path = files.write(tmp_path / "s.jsonl", files.sglang(LOAD))
    assert "Infinity" in path.read_text(encoding="utf-8")
    assert math.isinf(read_file(path)[0].request_rate)
    assert math.isinf(read_flat(files.vllm(LOAD), "f").request_rate)
    assert read_flat(files.vllm(LOAD, request_rate=4.0), "f").request_rate == 4.0


def test_several_results_in_one_file(tmp_path: Path) -> None:
    loads = [files.closed_loop(c, 1024, 256, 0.1, 0.01) for c in (32, 4)]
    appended = files.write(tmp_path / "appended.json", *map(files.vllm, loads))
    glued = tmp_path / "glued.json"
    glued.write_text("".join(json.dumps(files.vllm(each)) for each in loads), encoding="utf-8")
    listed = files.write(tmp_path / "list.json", [files.vllm(each) for each in loads])
    for path in (appended, glued, listed,
                 files.write(tmp_path / "g.json", files.guidellm(loads))):
        assert [r.concurrency for r in read_runs([path])] == [4, 32], path.name


def test_metadata_and_failures_are_kept() -> None:
    run = read_flat(files.vllm(LOAD, failed=7, gpu="H100"), "f")
    assert run.failed == 7
    assert run.metadata == {"tensor_parallel_size": "1", "gpu": "H100"}
    old = files.vllm(LOAD)
    del old["failed"], old["total_token_throughput"]
    assert read_flat(old, "f").failed == 0


def test_failed_requests_are_not_counted_in_the_detail() -> None:
    row = files.vllm(LOAD, detailed=True)
    row["errors"][0], row["output_lens"][0], row["ttfts"][1] = "timeout", 0, 0.0
    detail = read_flat(row, "f").detail
    assert detail is not None and len(detail) == len(LOAD.ttft_s) - 2


def test_genai_perf_keeps_its_concurrency_elsewhere() -> None:
    row = files.aiperf(LOAD, input_config={
        "perf_analyzer": {"stimulus": {"concurrency": 8}}, "endpoint": {}})
    assert read_summary(row, "f").concurrency == 8
    phases = {"phases": [{"name": "warmup", "concurrency": 1},
                         {"name": "profiling", "concurrency": 16}]}
    assert read_summary(files.aiperf(LOAD, input_config=phases), "f").concurrency == 16


@pytest.mark.parametrize(("text", "message"), [
    ("", "no JSON object"), ("[1, 2]", "no JSON object"), ('{"a": ', "malformed JSON (line 1)"),
    ('{"a": 1}', "no result of"),
    ('{"completed": null, "request_throughput": 2}', "'completed'"),
    ('{"benchmarks": []}', "no benchmark with completed"),
])
def test_other_files_are_one_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "x.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError) as caught:
        read_file(path)
    assert message in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(("change", "message"), [
    ({"completed": 0}, "no request completed"), ({"duration": "long"}, "a number is needed"),
    ({"total_input_tokens": None}, "'total_input_tokens' is missing"),
    ({"output_throughput": -1.0}, "a positive number is needed"),
    ({"duration": float("nan")}, "a positive number is needed"),
])
def test_figures_that_cannot_be_are_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_flat(files.vllm(LOAD, **change), "mine.json")


def test_an_unknown_unit_is_named() -> None:
    row = files.aiperf(LOAD)
    row["time_to_first_token"]["unit"] = "fortnights"
    with pytest.raises(InputError, match="unknown unit 'fortnights'"):
        read_summary(row, "mine.json")


def test_a_missing_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No such file"):
        objects(tmp_path / "none.json")
