"""Shapes of result files that people really have: other versions, forks, logs, tables, gaps."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any

import benchmark_files as files
import pytest

from costsim.cli.calibrate import is_benchmark
from costsim.cli.validate_benchmark import stated_engine, stated_type
from costsim.engine.hardware_limits import with_hardware_limits
from costsim.engine.presets import load_settings
from costsim.errors import InputError
from costsim.hardware.loader import load_hardware
from costsim.validation.benchmarks.aiperf import read_summary
from costsim.validation.benchmarks.guidellm import read_report
from costsim.validation.benchmarks.lists import read_flat
from costsim.validation.benchmarks.read import read_file

LOAD = files.closed_loop(8, 1024, 256, 0.12, 0.011, spread=0.1)
VLLM_PRINTS = """\
Namespace(backend='vllm', model='meta-llama/Llama-3.2-3B-Instruct', num_prompts=300, burstiness=1.0)
Traffic request rate: 10.0
Burstiness factor: 1.0 (Poisson process)
Maximum request concurrency: None
100%|##########| 300/300 [00:36<00:00,  8.33it/s]
============ Serving Benchmark Result ============
Successful requests:                     300
Benchmark duration (s):                  36.03
Total input tokens:                      299700
Total generated tokens:                  81000
Request throughput (req/s):              8.33
Output token throughput (tok/s):         2249.25
---------------Time to First Token----------------
Mean TTFT (ms):                          54.58
Median TTFT (ms):                        53.00
P99 TTFT (ms):                           89.77
-----Time per Output Token (excl. 1st token)------
Mean TPOT (ms):                          13.58
Median TPOT (ms):                        13.51
==================================================
"""
SGLANG_PRINTS = """\
#### Medium concurrency

```shell
python3 -m sglang.bench_serving \\
  --backend sglang \\
  --model Qwen/Qwen3-8B \\
  --dataset-name random \\
  --random-input-len 1000 --random-output-len 1000 \\
  --num-prompts 80 \\
  --max-concurrency 16
```

```
============ Serving Benchmark Result ============
Backend:                                 sglang
Traffic request rate:                    inf
Max request concurrency:                 16
Successful requests:                     80
Benchmark duration (s):                  30.00
Total input tokens:                      39668
Total generated tokens:                  40805
Total generated tokens (retokenized):    40800
Request throughput (req/s):              2.67
Output token throughput (tok/s):         1360.17
Accept length:                           2.90
----------------End-to-End Latency----------------
Mean E2E Latency (ms):                   5400.00
Median E2E Latency (ms):                 5300.00
---------------Time to First Token----------------
Mean TTFT (ms):                          150.00
-----Time per Output Token (excl. 1st token)------
Mean TPOT (ms):                          10.30
==================================================
```
"""


def _written(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_what_vllm_prints_is_read_with_the_load_before_it(tmp_path: Path) -> None:
    later = VLLM_PRINTS.replace("rate: 10.0", "rate: inf").replace("8.33\n", "9.00\n")
    first, second = read_file(_written(tmp_path / "bench.log", VLLM_PRINTS + later))
    assert (first.tool, first.requests, first.isl, first.osl) == ("vllm", 300, 999, 270)
    assert first.request_rate == 10.0 and first.concurrency is None
    assert first.ttft_s.mean == pytest.approx(0.05458) and first.tpot_s.p50 == 0.01351
    assert first.model == "meta-llama/Llama-3.2-3B-Instruct"
    assert math.isinf(second.request_rate) and second.requests_per_s == 9.0


def test_what_sglang_prints_is_read_from_a_document(tmp_path: Path) -> None:
    run, = read_file(_written(tmp_path / "page.md", SGLANG_PRINTS))
    assert (run.tool, run.concurrency, run.requests) == ("sglang", 16, 80)
    assert run.e2e_s.mean == 5.4 and run.engine == "sglang"
    # The command says random lengths and no range: SGLang draws from 1 to the length.
    assert run.isl_cv == run.osl_cv == pytest.approx(1 / math.sqrt(3))
    assert any("speculative" in note for note in run.notes)


def test_objects_between_the_lines_of_a_log_are_read_rather_than_its_blocks(tmp_path: Path) -> None:
    row = json.dumps(files.vllm(LOAD))
    text = f"starting\n{VLLM_PRINTS}<<<RESULT_START>>>\n{row}\n<<<RESULT_END>>>\n{{broken\n"
    run, = read_file(_written(tmp_path / "job.log", text))
    assert run.concurrency == 8 and run.requests == 64


def test_a_table_of_runs_is_read(tmp_path: Path) -> None:
    path = tmp_path / "summary.csv"
    rows = [files.vllm(LOAD, max_concurrency=c) for c in (2, 4)]
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, list(rows[0]))
        table.writeheader()
        table.writerows(rows)
    found = read_file(path)
    assert [r.concurrency for r in found] == [2, 4]
    assert found[0].tpot_s.mean == pytest.approx(LOAD.tpot_s.mean())
    assert is_benchmark([str(path)])
    assert not is_benchmark([str(_written(tmp_path / "kernels.csv", "operator,m,n,k\n"))])


def test_a_text_without_results_says_what_is_needed(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"malformed JSON \(line 1\), and no printed result"):
        read_file(_written(tmp_path / "notes.txt", "nothing here\n"))


def test_seconds_and_medians_of_a_fork_are_read() -> None:
    row = {k: v for k, v in files.vllm(LOAD).items() if not k.endswith("_ms")}
    run = read_flat({**row, "median_ttft": 0.94, "median_tpot": 0.0224, "median_e2el": 3.79,
                     "p99_e2el": 5.1}, "f")
    assert run.ttft_s.mean is None and run.ttft_s.p50 == 0.94
    assert run.tpot_s.p50 == 0.0224 and run.e2e_s.p99 == 5.1


def test_sglang_of_old_has_no_rate_of_requests_and_no_tpot() -> None:
    row = files.sglang(LOAD, request_rate=4.0, max_concurrency=None)
    kept = ("backend", "dataset_name", "request_rate", "max_concurrency", "total_input_tokens",
            "total_output_tokens", "total_output_tokens_retokenized", "mean_e2e_latency_ms",
            "median_e2e_latency_ms", "median_ttft_ms", "median_itl_ms", "duration", "completed")
    run = read_flat({k: row[k] for k in kept}, "f")
    assert run.requests_per_s == pytest.approx(64 / LOAD.duration_s)
    assert run.output_tokens_per_s == pytest.approx(64 * 256 / LOAD.duration_s)
    assert run.tpot_s.mean == pytest.approx(LOAD.tpot_s.mean(), rel=0.02)
    assert any("no TPOT" in note for note in run.notes)
    burst = read_flat({**{k: row[k] for k in kept}, "request_rate": math.inf}, "f")
    assert burst.tpot_s.mean is None  # The median TTFT of a queue is not its mean.


def test_vllm_of_old_says_latency_and_leaves_answers_empty() -> None:
    row = files.vllm(LOAD, detailed=True, max_concurrency=None)
    row["mean_latency_ms"] = 2900.0
    row["output_lens"][0], row["ttfts"][0], row["itls"][0] = 0, 0.0, []
    run = read_flat(row, "f")
    assert run.e2e_s.mean == 2.9 and run.label == "all 64 at once"
    assert run.detail is not None and len(run.detail) == 63


@pytest.mark.parametrize(("change", "concurrency", "rate"), [
    ({"request_rate": 1e9}, 8, math.inf),
    ({"max_concurrency": 1_000_000_000, "request_rate": 2.0}, None, 2.0),
    ({"max_concurrency": 64}, None, math.inf),
    ({"request_rate": "Infinity", "max_concurrency": None}, None, math.inf),
    ({"request_rate": None, "max_concurrency": "8"}, 8, math.inf),
    ({"request_rate": 3.0}, 8, 3.0),
])
def test_the_load_is_what_it_came_to(
    change: dict[str, Any], concurrency: float | None, rate: float
) -> None:
    run = read_flat(files.vllm(LOAD, **change), "f")
    assert (run.concurrency, run.request_rate) == (concurrency, rate)


def test_failed_requests_are_those_that_were_sent_and_did_not_complete() -> None:
    row = files.vllm(LOAD, num_prompts=90)
    del row["failed"]
    assert read_flat(row, "f").failed == 26
    assert read_flat(files.vllm(LOAD, num_prompts=90, failed=3), "f").failed == 3


def test_runs_in_which_nothing_completed_are_left_out_beside_others(tmp_path: Path) -> None:
    none = files.vllm(LOAD, completed=0, request_throughput=0.0)
    run, = read_file(files.write(tmp_path / "f.json", none, files.vllm(LOAD)))
    assert run.requests == 64
    with pytest.raises(InputError, match="no request completed"):
        read_file(files.write(tmp_path / "g.json", none))


def test_lengths_vary_as_the_tools_draw_them() -> None:
    even = read_flat(files.sglang(LOAD, random_range_ratio=0.0), "f")
    assert even.isl_cv == pytest.approx(1 / math.sqrt(3))
    assert read_flat(files.sglang(LOAD), "f").isl_cv == 0.0
    chats = read_flat(files.sglang(LOAD, dataset_name="sharegpt"), "f")
    assert chats.isl_cv > 1 and chats.osl_cv > 0.9
    ended = read_flat(files.vllm(LOAD, total_output_tokens=16001), "f")
    assert ended.osl_cv > 0.5 and any("end by themselves" in note for note in ended.notes)
    assert read_flat(files.vllm(LOAD, burstiness=4.0), "f").arrival_cv == 0.5


def test_what_sglang_says_of_its_server_is_read() -> None:
    server = {"model_path": "Qwen/Qwen2.5-3B-Instruct", "tp_size": 2, "quantization": "fp8",
              "kv_cache_dtype": "auto", "speculative_algorithm": "EAGLE"}
    run = read_flat(files.sglang(LOAD, server_info=server), "f")
    assert run.model == "Qwen/Qwen2.5-3B-Instruct"
    assert run.metadata["tensor_parallel_size"] == "2" and run.metadata["quantization"] == "fp8"
    assert any("speculative" in note for note in run.notes)
    assert stated_engine([run]) == "sglang" and stated_type([run]) == "fp8"


def test_the_served_name_says_the_type_of_the_weights() -> None:
    def named(name: str) -> Any:
        return read_flat(files.vllm(LOAD, model_id=name), "f")

    assert stated_type([named("neuralmagic/Meta-Llama-3.1-8B-Instruct-FP8")]) == "fp8"
    assert stated_type([named("nvidia/Qwen3.6-35B-A3B-NVFP4")]) == "nvfp4"
    assert stated_type([named("meta-llama/Llama-3.1-8B-Instruct")]) is None
    assert stated_engine([named("x")]) == "vllm"


def test_aiperf_of_new_names_models_and_phases_elsewhere() -> None:
    config = {"models": {"items": [{"name": "qwen3.6-nvfp4"}]},
              "phases": [{"name": "warmup", "type": "concurrency", "concurrency": 2},
                         {"name": "profiling", "type": "constant", "rate": 1.2}]}
    run = read_summary(files.aiperf(LOAD, input_config=config), "f")
    assert run.model == "qwen3.6-nvfp4" and run.request_rate == 1.2
    assert run.concurrency is None and run.arrival_cv == 0.0
    assert run.isl_cv == 0.0


def test_guidellm_of_new_names_its_backend_and_spaces_requests_evenly() -> None:
    report = files.guidellm([LOAD])
    report["benchmarks"][0]["config"] = {
        "strategy": {"type_": "constant", "rate": 4.0, "max_concurrency": 10240},
        "backend": {"kind": "openai_http", "model": "llama"}}
    run, = read_report(report, "f")
    assert (run.model, run.request_rate, run.arrival_cv) == ("llama", 4.0, 0.0)


@pytest.mark.parametrize(("engine", "hardware", "tokens", "requests"), [
    ("vllm", "l40s", 2048, 256), ("vllm", "a100_sxm_80gb", 2048, 256),
    ("vllm", "h100_sxm", 8192, 1024), ("sglang", "rtx_4090", 2048, 2048),
    ("sglang", "h200_sxm", 8192, 2048), ("sglang", "mi300x", 16384, 2048),
])
def test_engines_set_their_limits_by_the_memory(
    engine: str, hardware: str, tokens: int, requests: int
) -> None:
    found = with_hardware_limits(load_settings(engine), load_hardware(hardware))
    assert (found.max_num_batched_tokens, found.max_num_seqs) == (tokens, requests)


def test_a_limit_of_the_user_stays() -> None:
    mine = load_settings("vllm", max_num_batched_tokens=4096)
    found = with_hardware_limits(mine, load_hardware("l40s"))
    assert (found.max_num_batched_tokens, found.max_num_seqs) == (4096, 256)
