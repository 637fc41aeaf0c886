"""What starts a plan: flags that the engines know, manifests that parse, schedules that add up."""

from __future__ import annotations

import re
import shlex
import subprocess
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import costsim
from costsim.engine.deployment import deploy
from costsim.engine.layout import Layout
from costsim.engine.precision import Precision
from costsim.engine.presets import load_settings
from costsim.errors import InputError
from costsim.planning.commands_out import (
    ENGINES,
    broken_line,
    checkpoint,
    engine_command,
    start_script,
    tensorrt_options,
)
from costsim.planning.kubernetes_out import kubernetes_yaml, runs_of
from costsim.planning.plan_points import Candidate

yaml = pytest.importorskip("yaml", reason="PyYAML is not installed")

# Flags of the engines: vllm/engine/arg_utils.py and cli_args.py, sglang/srt/server_args.py,
# tensorrt_llm/commands/serve.py.
KNOWN = {
    "vllm": """--served-model-name --tensor-parallel-size --pipeline-parallel-size
        --data-parallel-size --enable-expert-parallel --decode-context-parallel-size --max-num-seqs
        --max-num-batched-tokens --gpu-memory-utilization --block-size --kv-cache-dtype
        --no-enable-prefix-caching --quantization --speculative-config --kv-transfer-config
        --distributed-executor-backend""",
    "sglang": """--model-path --served-model-name --host --port --tensor-parallel-size
        --pipeline-parallel-size --data-parallel-size --enable-dp-attention --expert-parallel-size
        --max-running-requests --chunked-prefill-size --mem-fraction-static --page-size
        --kv-cache-dtype --disable-radix-cache --quantization --disaggregation-mode
        --disaggregation-transfer-backend --dist-init-addr --nnodes --node-rank""",
    "tensorrt_llm": """--host --port --tp_size --pp_size --ep_size --max_batch_size
        --max_num_tokens --kv_cache_free_gpu_memory_fraction --extra_llm_api_options""",
}


def candidate(
    model: str = "llama-3.1-70b", hardware: str = "h100_sxm", layout: Layout | None = None,
    hits: float = 0.0, **changes: Any,
) -> Candidate:
    settings = replace(load_settings("vllm"), prefix_hit_share=hits)
    deployment = deploy(
        costsim.load_model(model), costsim.load_hardware(hardware), layout or Layout(tp=4),
        Precision.uniform("fp8", kv="fp8"), settings,
    )  # fmt: skip
    made = Candidate(deployment, 100.7, 80.0, 5.0, 0.5, 0.03, 0.4, 0.6, 0.2, "memory")
    return replace(made, **changes)


APART: dict[str, Any] = {"role": "disaggregated", "prefill": 2, "decode": 3}
LAYOUTS = [Layout(tp=4), Layout(tp=2, pp=2), Layout(tp=2, dp=4, ep=8)]


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize("role", ["both", "prefill", "decode"])
@pytest.mark.parametrize("engine", ENGINES)
def test_flags_are_known_to_the_engine(engine: str, role: str, layout: Layout) -> None:
    made = candidate("deepseek-v3" if layout.dp > 1 else "llama-3.1-70b", layout=layout)
    words = shlex.split(engine_command(made, engine, role))
    flags = [w for w in words if w.startswith("--")]
    assert set(flags) <= set(KNOWN[engine].split()) and len(flags) == len(set(flags))
    told = dict(pairwise(words))
    if engine == "vllm":
        assert told["--tensor-parallel-size"] == str(layout.tp)
        assert ("--kv-transfer-config" in flags) == (role != "both")
        assert role == "prefill" or told["--max-num-seqs"] == str(int(100.7 / layout.dp))
    if engine == "sglang":
        assert told["--tensor-parallel-size"] == str(layout.tp * layout.dp)
        assert told.get("--disaggregation-mode", "both") == role
    if engine == "tensorrt_llm":
        assert told["--tp_size"] == str(layout.tp * layout.dp)
        options = yaml.safe_load(tensorrt_options(made, role))
        assert options.get("enable_attention_dp", False) == (layout.dp > 1)
        assert ("cache_transceiver_config" in options) == (role != "both")
        assert options["kv_cache_config"]["dtype"] == "fp8"


def test_commands_name_the_checkpoint_and_keep_the_cache_on_where_it_hits() -> None:
    assert checkpoint(candidate().deployment) == "meta-llama/Llama-3.1-70B"
    assert checkpoint(candidate("gpt-3-175b").deployment) == "gpt-3-175b"
    assert "--no-enable-prefix-caching" in engine_command(candidate())
    assert "--no-enable-prefix-caching" not in engine_command(candidate(hits=0.3))
    with pytest.raises(InputError, match="did you mean 'sglang'"):
        engine_command(candidate(), "sglan")


def test_a_broken_line_is_the_same_command() -> None:
    line = engine_command(candidate(**APART), "vllm", "decode")
    parts = broken_line(line)
    assert all(len(part) <= 78 or part.count(" --") == 1 for part in parts)
    assert all(part.endswith("\\") for part in parts[:-1])
    assert shlex.split("\n".join(parts).replace("\\\n", " ")) == shlex.split(line)


def test_scripts_are_valid_shell(tmp_path: Path) -> None:
    for made in (candidate(), candidate(**APART)):
        path = tmp_path / "start.sh"
        path.write_text(start_script(made))
        subprocess.run(["sh", "-n", str(path)], check=True)


def documents(made: Candidate, replicas: int, **options: Any) -> list[dict[str, Any]]:
    found = list(yaml.safe_load_all(kubernetes_yaml(made, replicas, **options)))
    for row in found:
        assert re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", row["metadata"]["name"])
    return found


@pytest.mark.parametrize("engine", ENGINES)
def test_manifests_parse_and_ask_for_the_chips(engine: str) -> None:
    found = documents(candidate(), 3, engine=engine)
    deployment = next(r for r in found if r["kind"] == "Deployment")
    pod = deployment["spec"]["template"]
    labels = deployment["spec"]["selector"]["matchLabels"]
    assert deployment["spec"]["replicas"] == 3
    assert labels.items() <= pod["metadata"]["labels"].items()
    container = pod["spec"]["containers"][0]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "4"
    words = [*container["command"], *container["args"]]
    assert words == shlex.split(engine_command(candidate(), engine))
    service = next(r for r in found if r["kind"] == "Service")
    assert service["spec"]["selector"].items() <= labels.items()


def test_disaggregated_units_are_two_deployments() -> None:
    found = documents(candidate(**APART), 4)
    rows = [r for r in found if r["kind"] == "Deployment"]
    assert [r["spec"]["replicas"] for r in rows] == [8, 12]
    roles = [r["spec"]["template"]["metadata"]["labels"]["llm-d.ai/role"] for r in rows]
    assert roles == ["prefill", "decode"] and len({r["metadata"]["name"] for r in rows}) == 2
    assert found[-1]["spec"]["selector"]["llm-d.ai/role"] == "decode"


def test_a_replica_over_nodes_is_a_leader_worker_set() -> None:
    found = documents(candidate("llama-3.1-405b", layout=Layout(tp=8, pp=2)), 1)
    group = found[0]
    assert group["kind"] == "LeaderWorkerSet" and group["spec"]["leaderWorkerTemplate"]["size"] == 2
    for part in ("leaderTemplate", "workerTemplate"):
        pod = group["spec"]["leaderWorkerTemplate"][part]["spec"]["containers"][0]
        assert pod["resources"]["limits"]["nvidia.com/gpu"] == "8"


def test_pools_of_one_model_have_names_of_their_own() -> None:
    pools = [candidate(), candidate(layout=Layout(tp=2)), candidate(hardware="mi300x"),
             candidate(batch_limit=50.0)]  # fmt: skip
    names = {documents(made, 1)[0]["metadata"]["name"] for made in pools}
    assert len(names) == 4
    amd = documents(pools[2], 1)[0]["spec"]["template"]["spec"]["containers"][0]
    assert "amd.com/gpu" in amd["resources"]["limits"]


def followed(by_hour: list[int]) -> list[int]:
    """The counts that KEDA sets by the hour: the greatest of the triggers that are on."""
    counts = []
    for h in range(len(by_hour)):
        day, hour = str((h // 24 + 1) % 7), h % 24
        on = [c for days, start, end, c in runs_of(by_hour)
              if (days == "*" or day in days.split(",")) and start <= hour
              and hour < (24 if end == "59 23" else int(end.split()[1]))]  # fmt: skip
        counts.append(max([min(by_hour), *on]))
    return counts


@given(st.lists(st.integers(0, 4), min_size=24, max_size=24))
def test_the_schedule_of_a_day_is_the_plan(by_hour: list[int]) -> None:
    assert followed(by_hour) == by_hour


def test_the_schedule_of_a_week_groups_days_alike() -> None:
    week = ([1] * 8 + [3] * 10 + [2] * 6) * 5 + [1] * 48
    assert followed(week) == week and len(runs_of(week)) == 2
    found = documents(candidate(), 3, by_hour=week)
    scaled = next(r for r in found if r["kind"] == "ScaledObject")
    assert scaled["spec"]["maxReplicaCount"] == 3 and scaled["spec"]["minReplicaCount"] == 1
    assert scaled["spec"]["scaleTargetRef"]["name"] == found[0]["metadata"]["name"]
    assert scaled["spec"]["triggers"][0]["metadata"]["start"] == "0 8 * * 1,2,3,4,5"
