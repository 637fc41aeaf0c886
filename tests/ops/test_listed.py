"""Operators listed in a preset: the same arithmetic as the model's own, cut up otherwise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from costsim.engine.deployment import deploy
from costsim.engine.layout import Layout
from costsim.engine.precision import Precision
from costsim.engine.presets import load_settings
from costsim.engine.settings import EngineSettings
from costsim.engine.step import StepTime, step_time
from costsim.errors import InputError
from costsim.hardware.loader import load_hardware
from costsim.models.loader import load_model
from costsim.ops.listed import unknown_factors, value

STEPS: list[dict[str, Any]] = [
    {"prefill_requests": 2, "prefill_tokens": 300}, {"decode_requests": 8, "decode_context": 900}]


def _step(model: str, settings: EngineSettings, step: dict[str, Any], kind: str = "fp32"
          ) -> StepTime:
    deployment = deploy(load_model(model), load_hardware("h100_sxm"), Layout(),
                        Precision(*[kind] * 7), settings)
    return step_time(deployment, **step)


def test_values_of_expressions() -> None:
    sizes = {"tokens": 3.0, "hidden": 5.0, "element": 2.0}
    assert value("2*tokens*hidden*element + 0.5*hidden", sizes) == 62.5
    assert unknown_factors("2*tokens*hiden + 1") == ["hiden"]
    assert unknown_factors("0.5*tokens") == []


@pytest.mark.parametrize("model", ["llama-3.1-8b", "qwen3-0.6b", "mixtral-8x7b", "qwen3-30b-a3b"])
@pytest.mark.parametrize("step", STEPS)
def test_listed_gemms_do_the_same_arithmetic(model: str, step: dict[str, Any]) -> None:
    listed = _step(model, load_settings("transformers"), step)
    own = _step(model, EngineSettings(), step)
    assert float(listed.flop) == pytest.approx(float(own.flop), rel=1e-9)
    assert set(load_settings("transformers").replaces).isdisjoint(listed.by_operator)


def test_the_cache_is_copied_every_step() -> None:
    settings = load_settings("transformers")
    short, long = (_step("llama-3.1-8b", settings, {"decode_requests": 8, "decode_context": s})
                   for s in (1000, 9000))
    model, copied = load_model("llama-3.1-8b"), "cache concatenation"
    extra = 8 * 8000 * 32 * 2 * 8 * 128 * 4.0  # requests · tokens · layers · K and V · kv · size
    assert short.by_operator[copied] < long.by_operator[copied]
    moved = float(long.memory_bytes - short.memory_bytes)
    assert moved == pytest.approx(3 * extra, rel=0.01), model.name  # read, written, and attended


def test_query_and_key_norms_only_where_the_model_has_them() -> None:
    settings = load_settings("transformers")
    assert "query and key norm" in _step("qwen3-0.6b", settings, STEPS[1]).by_operator
    assert "query and key norm" not in _step("llama-3.1-8b", settings, STEPS[1]).by_operator


def test_host_time_of_layers_adds_up() -> None:
    from dataclasses import replace

    base = EngineSettings()
    model = load_model("llama-3.1-8b")
    slower = replace(base, layer_gap_s=1e-4)
    gained = float(_step("llama-3.1-8b", slower, STEPS[1]).seconds
                   - _step("llama-3.1-8b", base, STEPS[1]).seconds)
    assert gained == pytest.approx(1e-4 * sum(kind.count for kind in model.layers))


@pytest.mark.parametrize(("text", "message"), [
    ('[[operators]]\nname = "x"\nwhere = "layer"\nbytes = "tokens*hiden"', "hiden"),
    ('[[operators]]\nname = "x"\nwhere = "layer"', "either gemm or bytes"),
    ('[[operators]]\nname = "x"\nwhere = "roof"\nbytes = "tokens"', "where"),
    ('replaces = ["router"]\n[[operators]]\nname = "router"\nwhere = "layer"\nbytes = "tokens"',
     "listed and replaced"),
])
def test_mistakes_in_a_list_are_one_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('extends = "vllm"\n' + text + "\n", encoding="utf-8")
    with pytest.raises(InputError) as caught:
        load_settings(str(path))
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_a_preset_extends_another(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('extends = "sglang"\n[settings]\nhost_step_s = 0.005\n[sources]\n'
                    'host_step_s = "measured"\n', encoding="utf-8")
    mine, base = load_settings(str(path)), load_settings("sglang")
    assert mine.host_step_s == 0.005 and mine.kernels == "sglang"
    assert mine.memory_rule == base.memory_rule and mine.version == base.version
    path.write_text(f'extends = "{path}"\n', encoding="utf-8")
    with pytest.raises(InputError, match="extends itself"):
        load_settings(str(path))
