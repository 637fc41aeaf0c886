"""Totals of the configs in `aiconfigurator-core` against the published ones, all within 1 %."""

from __future__ import annotations

from pathlib import Path

import pytest

from costsim.models.count import parameters
from costsim.models.huggingface import read_config

pytestmark = pytest.mark.published

# beginning of the file's name: (1e9 weights, with the vision tower, where it is published).
# NAME-* stands for the quantised checkpoints of the same model too.
CARD = "model card on Hugging Face"
TOTALS: dict[str, tuple[float, bool, str]] = {
    "MiniMaxAI--MiniMax-M2.": (230, True, CARD),
    "nvidia--MiniMax-M2.": (230, True, CARD),
    "Qwen--Qwen3-0.6B": (0.6, True, CARD),
    "Qwen--Qwen3-8B": (8.2, True, CARD),
    "Qwen--Qwen3-32B": (32.8, True, CARD),
    "Qwen--Qwen3-30B-A3B": (30.5, True, CARD),
    "Qwen--Qwen3-235B-A22B": (235, True, CARD),
    "nvidia--Qwen3-235B-A22B": (235, True, CARD),
    "Qwen--Qwen3-Coder-480B": (480, True, CARD),
    "Qwen--Qwen3-VL-235B": (236, True, CARD),
    "Qwen--Qwen3.5-122B": (122, True, CARD),
    "nvidia--Qwen3.5-122B": (122, True, CARD),
    "Qwen--Qwen3.5-35B": (35, True, CARD),
    "nvidia--Qwen3.6-35B": (35, True, CARD),
    "Qwen--Qwen3.5-397B": (397, True, CARD),
    "nvidia--Qwen3.5-397B": (397, True, CARD),
    "XiaomiMiMo--MiMo-V2-Flash": (309, True, CARD),
    "deepseek-ai--DeepSeek-R1": (671, True, "arXiv:2501.12948"),
    "deepseek-ai--DeepSeek-V3_": (671, True, "arXiv:2412.19437"),
    "nvidia--DeepSeek-V3.1": (671, True, "arXiv:2412.19437"),
    "deepseek-ai--DeepSeek-V4-Flash": (284, True, CARD),
    "sgl-project--DeepSeek-V4-Flash": (284, True, CARD),
    "nvidia--DeepSeek-V4-Flash": (284, True, CARD),
    "google--gemma-4-26B": (25.2, False, CARD),
    "nvidia--Gemma-4-26B": (25.2, False, CARD),
    "nvidia--Gemma-4-31B": (30.7, False, CARD),
    "meta-llama--Llama-4-Maverick": (400, False, CARD),
    "meta-llama--Meta-Llama-3.1-405B": (405, True, "arXiv:2407.21783"),
    "meta-llama--Meta-Llama-3.1-70B": (70.6, True, CARD),
    "nvidia--Llama-3.1-70B": (70.6, True, CARD),
    "meta-llama--Meta-Llama-3.1-8B": (8.03, True, CARD),
    "mistralai--Mixtral-8x7B": (46.7, True, "mistral.ai, 2023-12-11"),
    "mistralai--Mixtral-8x22B": (141, True, "mistral.ai, 2024-04-17"),
    "moonshotai--Kimi-K2-": (1030, True, CARD),
    "zai-org--GLM-5": (744, True, CARD),
    "nvidia--GLM-5": (744, True, CARD),
    "nvidia--Llama-3_3-Nemotron-Super-49B": (49.9, True, CARD),
    "nvidia--NVIDIA-Nemotron-3-Nano": (31.6, True, CARD),
    "nvidia--NVIDIA-Nemotron-3-Super": (120.6, True, CARD),
    "nvidia--NVIDIA-Nemotron-3-Ultra": (550, True, CARD),
    "nvidia--Nemotron-H-56B": (56, True, "arXiv:2504.03624"),
    "openai--gpt-oss-20b": (20.9, True, "arXiv:2508.10925"),
    "openai--gpt-oss-120b": (116.8, True, "arXiv:2508.10925"),
    "stepfun-ai--Step-3.7": (196, False, CARD),
}


def test_at_least_forty_totals_within_one_percent(silicon: Path) -> None:
    checked = 0
    for path in sorted((silicon / "model_configs").glob("*_config.json")):
        row = next((r for name, r in TOTALS.items() if path.name.startswith(name)), None)
        if row is None or "hf_quant" in path.name:
            continue
        published, tower, _ = row
        counted = parameters(read_config(path))
        ours = counted.total - (0 if tower else counted.encoders)
        assert ours / 1e9 == pytest.approx(published, rel=0.01), path.name
        checked += 1
    assert checked >= 60
