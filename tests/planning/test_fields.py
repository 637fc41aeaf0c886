"""Engine features by name: each changes what it should, by what a count by hand says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from costsim.cli import cli
from costsim.engine.layout import Layout
from costsim.engine.memory import memory_budget
from costsim.engine.presets import load_settings
from costsim.engine.settings import Routing, Speculation
from costsim.engine.steady_state import operating_point
from costsim.errors import InputError
from costsim.planning.estimate import Estimate, estimate, make_deployment
from costsim.planning.fields import parse_variation, with_changes

POINT = {"batch": 32, "isl": 2000.0, "osl": 300.0}
DENSE = ("llama-3.1-70b", "h100_sxm", Layout(tp=4))
SPARSE = ("deepseek-v3", "h200_sxm", Layout(dp=8, ep=8))


def at(place: tuple[str, str, Layout], *changes: str) -> Estimate:
    return estimate(place[0], place[1], place[2], **POINT, changes=changes)


@pytest.mark.parametrize(("place", "change", "settings"), [
    (DENSE, "engine.prefix_hit=0.4", {"prefix_hit_share": 0.4}),
    (DENSE, "engine.chunk=2048", {"max_num_batched_tokens": 2048}),
    (DENSE, "engine.cuda_graphs=false", {"cuda_graphs": False}),
    (DENSE, "engine.chunked_prefill=false", {"chunked_prefill": False}),
    (DENSE, "engine.overlap_communication=0.8", {"overlap_communication": 0.8}),
    (DENSE, "engine.speculation=eagle:3:0.7", {"speculation": Speculation("eagle", 3, 0.7)}),
    (DENSE, "engine.speculation=draft_model:4:0.7:llama-3.1-8b",
     {"speculation": Speculation("draft_model", 4, 0.7, "llama-3.1-8b")}),
    (SPARSE, "engine.speculation=mtp:1:0.8", {"speculation": Speculation("mtp", 1, 0.8)}),
    (SPARSE, "engine.routing=power_law:0.6", {"routing": Routing("power_law", 0.6)}),
    (SPARSE, "engine.routing=balanced", {"routing": Routing("balanced")}),
    (SPARSE, "engine.weight_offload=0.1", {"weight_offload_share": 0.1}),
    (SPARSE, "engine.kv_offload=0.5", {"kv_offload_share": 0.5}),
])
def test_words_are_the_settings(
    place: tuple[str, str, Layout], change: str, settings: dict[str, Any]
) -> None:
    by_name = at(place, change)
    by_object = estimate(place[0], place[1], place[2], **POINT,
                         engine=load_settings("vllm", **settings))
    assert by_name.deployment.settings == by_object.deployment.settings
    assert float(by_name.tpot_s) == float(by_object.tpot_s)
    plain = at(place)
    assert (float(by_name.tpot_s), float(by_name.ttft_s), by_name.point.max_batch) != (
        float(plain.tpot_s), float(plain.ttft_s), plain.point.max_batch) or "graphs" in change


def test_several_changes_and_numbers_inside_of_features() -> None:
    found = at(SPARSE, "engine.speculation=mtp:1:0.8", "engine.draft_tokens=3",
               "engine.acceptance=0.6", "engine.routing_alpha=0.5", "engine.replicated_experts=32")
    settings = found.deployment.settings
    assert settings.speculation == Speculation("mtp", 3, 0.6)
    assert settings.routing == Routing("power_law", 0.5, replicated_experts=32)
    plain = memory_budget(at(SPARSE).deployment).weights_bytes
    drafter, copies = 11.610e9, 32 * 58 * 3 * 7168 * 2048 / 8
    held = memory_budget(found.deployment).weights_bytes
    assert held - plain == pytest.approx(copies + drafter / 8, rel=0.01)


@pytest.mark.theory
def test_context_parallelism_on_the_command_line() -> None:
    """Two ranks share each cache: as many requests again, where the weights are kept twice."""
    long = {"batch": 4, "isl": 60_000.0, "osl": 500.0}
    one = estimate("llama-3.1-8b", "h100_sxm", Layout(tp=1), **long)
    two = estimate("llama-3.1-8b", "h100_sxm", Layout(tp=1, cp=2), **long)
    assert float(two.point.max_batch) >= 2 * float(one.point.max_batch)
    assert float(two.tpot_s) < float(one.tpot_s)


@pytest.mark.theory
def test_sequence_parallelism_sends_the_same_bytes_and_moves_fewer() -> None:
    plain, split = at(DENSE), at(DENSE, "layout.sequence_parallel=true")
    assert split.deployment.layout.sequence_parallel is True
    steps = [e.point.prefill for e in (plain, split)]
    assert "all-reduce" in steps[0].by_operator and "all-reduce" not in steps[1].by_operator
    ratio = steps[1].by_operator["norm and residual"] / steps[0].by_operator["norm and residual"]
    assert 0.15 < float(ratio) < 0.5  # a quarter of the bytes, better cached, the same launches


@pytest.mark.theory
def test_tokens_per_step_of_drafting_by_hand() -> None:
    """1 + 0.8 = 1.8 tokens a verify step: a decode step's tokens gain less, but more than half of
    it, and TPOT less still, since prompts hold decodes up as before."""
    plain, ahead = at(SPARSE), at(SPARSE, "engine.speculation=mtp:1:0.8")
    steps = 1.8 * float(plain.point.decode.seconds / ahead.point.decode.seconds)
    assert 1.3 < steps < 1.8
    assert 1.1 < float(plain.tpot_s) / float(ahead.tpot_s) <= steps * 1.001


def test_measured_counts_of_experts(tmp_path: Path) -> None:
    even, skewed = tmp_path / "even.json", tmp_path / "skewed.txt"
    even.write_text(json.dumps([5] * 256))
    skewed.write_text("\n".join(str(40 if i < 32 else 10) for i in range(256)))
    uniform = float(at(SPARSE).tpot_s)
    assert float(at(SPARSE, f"engine.routing=measured:{even}").tpot_s) == pytest.approx(
        uniform, rel=0.02)
    assert float(at(SPARSE, f"engine.routing=measured:{skewed}").tpot_s) > 1.02 * uniform
    even.write_text("[1, 2]")
    with pytest.raises(InputError, match="2 counts, but the model has 256 experts"):
        at(SPARSE, f"engine.routing=measured:{even}")


def test_precision_by_part() -> None:
    base = make_deployment(*DENSE)
    changed = with_changes(base, ["precision.ffn=fp8", "precision.activation=fp8",
                                  "precision.kv=fp8"])
    assert changed.precision.ffn == changed.precision.kv == "fp8"
    assert changed.precision.attention == "bf16"
    ffn = 80 * 3 * 8192 * 28672
    saved = memory_budget(base).weights_bytes - memory_budget(changed).weights_bytes
    assert saved == pytest.approx(ffn / 4, rel=1e-6)


def test_features_also_hold_where_the_layout_is_found() -> None:
    found = estimate("llama-3.1-8b", "h100_sxm", **POINT,
                     changes=["layout.sequence_parallel=true", "layout.tp=2"])
    assert found.deployment.layout == Layout(tp=2, sequence_parallel=True)
    offloaded = estimate("llama-3.1-70b", "h100_sxm", batch=1, isl=100, osl=10,
                         changes=["engine.weight_offload=0.6"])
    assert offloaded.deployment.layout.accelerators == 1


@pytest.mark.parametrize(("change", "words"), [
    ("engine.prefix_hit=1.5", "less than 1"), ("engine.prefix_hit=0.1,0.2", "takes one value"),
    ("engine.prefixhit=0.1", "did you mean"), ("engine.speculation=mpt:1:0.8", "mean 'mtp'"),
    ("engine.speculation=mtp:1", "must look like mtp:TOKENS:ACCEPTANCE"),
    ("engine.speculation=mtp:0:0.8", "from 1 to 64"),
    ("engine.speculation=mtp:1:1.8", "from 0 to 1"), ("engine.draft_tokens=2", "does not draft"),
    ("engine.routing=power:1", "did you mean 'power_law'"),
    ("engine.routing=power_law:x", "must be a number"), ("engine.routing=uniform:1", "no figure"),
    ("engine.routing=measured:/no/such/file", "/no/such/file"), ("batch=3", "a field of the"),
    ("engine.lora_rank=16", "engine.lora_adapters"), ("precision.kv=fp7", "fp7"),
    ("prefix_hit", "must look like"),
])
def test_mistakes_are_one_line(change: str, words: str) -> None:
    result = CliRunner().invoke(cli, ["estimate", "llama-3.1-8b", "h100_sxm", "--set", change])
    assert isinstance(result.exception, InputError)
    assert words in str(result.exception) and "\n" not in str(result.exception)


def test_features_can_be_varied() -> None:
    assert parse_variation("engine.speculation=none,mtp:1:0.8").values == ("none", "mtp:1:0.8")
    result = CliRunner().invoke(cli, [
        "whatif", "deepseek-v3", "h200_sxm", "--dp", "8", "--ep", "8", "--set",
        "engine.speculation=mtp:1:0.8", "--vary", "engine.draft_tokens=1,2,3", "--json"])
    assert result.exit_code == 0, result.output
    points = json.loads(result.output)["points"]
    assert len({p["estimate"]["tpot_s"]["value"] for p in points}) == 3


@pytest.mark.theory
def test_images_and_audio_on_the_command_line() -> None:
    """1024 x 768 pixels in patches of 16, four to a token: 64 x 48 / 4 = 768 tokens each."""
    result = CliRunner().invoke(cli, ["estimate", "qwen3-vl-8b", "h100_sxm", "--isl", "100",
                                      "--images", "2x1024x768", "--json"])
    assert result.exit_code == 0, result.output
    assert json.loads(result.output)["isl"] == 100 + 2 * 768
    assert json.loads(result.output)["image_and_audio_tokens"] == 2 * 768
    text = estimate("qwen3-vl-8b", "h100_sxm", batch=32, isl=100 + 2 * 768, osl=256)
    assert json.loads(result.output)["ttft_s"]["value"] > float(text.ttft_s)
    # Voxtral hears 50 frames a second, four to a token.
    heard = estimate("voxtral-mini-3b", "h100_sxm", batch=1, isl=10, osl=100, audio_s=30.0)
    assert heard.isl == pytest.approx(10 + 30 * 12.5, rel=0.01)
    for wrong in ("768", "axb", "1x2x3x4", "1024x0"):
        bad = CliRunner().invoke(cli, ["estimate", "qwen3-vl-8b", "h100_sxm", "--images", wrong])
        assert isinstance(bad.exception, InputError), wrong


def test_operating_point_and_estimate_agree() -> None:
    found = at(DENSE, "engine.prefix_hit=0.5")
    point = operating_point(found.deployment, POINT["batch"], POINT["isl"], POINT["osl"])
    assert float(point.ttft_s) == float(found.ttft_s)
