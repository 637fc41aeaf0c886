"""Parameter counts against those that the authors publish.

Totals agree to 1 %, or to the rounding of the figure where it has two digits. What counts as
active differs between authors: ``all`` counts embedding and head, ``head`` leaves the embedding
out (gpt-oss, DeepSeek), ``body`` leaves both out (GLM, MiniMax).
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from costsim.models.count import (
    active_parameters,
    kv_bytes_per_token,
    parameters,
    total_parameters,
)
from costsim.models.loader import list_models, load_model

pytestmark = pytest.mark.published

# name: (total in 1e9, active in 1e9, what active counts, where it is published)
CARD = "model card on Hugging Face"
PUBLISHED: dict[str, tuple[str, str, str, str]] = {
    "llama-2-7b": ("6.74", "", "", CARD),
    "llama-2-13b": ("13.0", "", "", CARD),
    "llama-2-70b": ("69.0", "", "", CARD),
    "llama-3-8b": ("8.03", "", "", CARD),
    "llama-3-70b": ("70.6", "", "", CARD),
    "llama-3.1-8b": ("8.03", "", "", CARD),
    "llama-3.1-70b": ("70.6", "", "", CARD),
    "llama-3.1-405b": ("405", "", "", "The Llama 3 herd of models, arXiv:2407.21783"),
    "llama-3.3-70b": ("70.6", "", "", CARD),
    "llama-4-scout": ("109", "17", "all", CARD),
    "llama-4-maverick": ("400", "17", "all", CARD),
    "codellama-34b": ("33.7", "", "", CARD),
    "yi-34b": ("34.4", "", "", CARD),
    "mistral-7b": ("7.24", "", "", CARD),
    "mistral-nemo": ("12.2", "", "", CARD),
    "mixtral-8x7b": ("46.7", "12.9", "all", "Mixtral of experts, mistral.ai, 2023-12-11"),
    "mixtral-8x22b": ("141", "39", "all", "Cheaper, better, faster, stronger, mistral.ai"),
    "qwen2.5-7b": ("7.61", "", "", CARD),
    "qwen2.5-32b": ("32.5", "", "", CARD),
    "qwen2.5-72b": ("72.7", "", "", CARD),
    "qwen3-0.6b": ("0.6", "", "", CARD),
    "qwen3-8b": ("8.2", "", "", CARD),
    "qwen3-14b": ("14.8", "", "", CARD),
    "qwen3-32b": ("32.8", "", "", CARD),
    "qwen3-30b-a3b": ("30.5", "", "", CARD),
    "qwen3-235b-a22b": ("235", "22", "all", CARD),
    "qwen3-coder-480b": ("480", "35", "all", CARD),
    "qwen3-next-80b-a3b": ("80", "", "", CARD),
    "qwen3-vl-235b-a22b": ("236", "22", "all", CARD),
    "qwen3.5-122b-a10b": ("122", "10", "all", CARD),
    "qwen3.5-35b-a3b": ("35", "", "", CARD),
    "qwen3.5-397b-a17b": ("397", "17", "all", CARD),
    "deepseek-v2": ("236", "21", "head", "DeepSeek-V2, arXiv:2405.04434"),
    "deepseek-v2-lite": ("15.7", "", "", "DeepSeek-V2, arXiv:2405.04434, appendix B"),
    "deepseek-v3": ("671", "37", "head", "DeepSeek-V3, arXiv:2412.19437"),
    "deepseek-r1": ("671", "37", "head", "DeepSeek-R1, arXiv:2501.12948"),
    "deepseek-v4-flash": ("284", "13", "head", CARD),
    "deepseek-v4-pro": ("1.6e3", "49", "head", CARD),
    "kimi-k2": ("1.03e3", "32", "head", CARD),
    "gpt-oss-20b": ("20.9", "3.6", "head", "gpt-oss model card, arXiv:2508.10925"),
    "gpt-oss-120b": ("116.8", "5.1", "head", "gpt-oss model card, arXiv:2508.10925"),
    "gemma-2-9b": ("9.24", "", "", CARD),
    "gemma-2-27b": ("27.2", "", "", CARD),
    "gemma-3-4b": ("4.30", "", "", "Gemma 3 technical report, arXiv:2503.19786, table 1"),
    "gemma-3-12b": ("12.2", "", "", "Gemma 3 technical report, arXiv:2503.19786, table 1"),
    "gemma-3-27b": ("27.4", "", "", "Gemma 3 technical report, arXiv:2503.19786, table 1"),
    "gemma-4-31b": ("31", "", "", CARD),
    "phi-3-mini": ("3.8", "", "", "Phi-3 technical report, arXiv:2404.14219"),
    "phi-3-medium": ("14", "", "", "Phi-3 technical report, arXiv:2404.14219"),
    "phi-4": ("14.7", "", "", CARD),
    "phi-3.5-moe": ("41.9", "6.6", "all", CARD),
    "dbrx": ("132", "36", "head", CARD),
    "grok-1": ("314", "", "", "README of xai-org/grok-1"),
    "falcon-180b": ("180", "", "", CARD),
    "glm-4.5": ("355", "32", "body", "GLM-4.5, arXiv:2508.06471"),
    "glm-4.5-air": ("106", "12", "body", "GLM-4.5, arXiv:2508.06471"),
    "glm-5": ("744", "40", "body", CARD),
    "minimax-m2": ("230", "10", "body", CARD),
    "mimo-v2-flash": ("309", "15", "all", CARD),
    "nemotron-3-nano-30b-a3b": ("31.6", "3.6", "all", CARD),
    "nemotron-3-super-120b-a12b": ("120.6", "12.7", "all", CARD),
    "nemotron-3-ultra-550b-a55b": ("550", "55", "head", CARD),
    "nemotron-h-56b": ("56", "", "", "Nemotron-H, arXiv:2504.03624"),
    "nemotron-super-49b": ("49.9", "", "", CARD),
    "step-3.7-flash": ("196", "11", "all", CARD),
    "gpt-3-175b": ("175", "", "", "arXiv:2005.14165, table 2.1"),
    "opt-175b": ("175", "", "", "arXiv:2205.01068"),
    "mt-nlg-530b": ("530", "", "", "arXiv:2201.11990"),
    "palm-540b": ("540.35", "", "", "arXiv:2204.02311, table 1"),
    "switch-c": ("1571", "", "", "arXiv:2101.03961, table 9"),
    "glam-64b-64e": ("1.2e3", "96.6", "all", "arXiv:2112.06905, table 4"),
    # not published: what the report says
    "gpt-4": ("1.8e3", "280", "all", "rumour: SemiAnalysis, 2023-07-10"),
}


def _tolerance(figure: str) -> float:
    """One percent, or half a unit of the last digit given, whichever is more."""
    digits, _, exponent = figure.partition("e")
    decimals = len(digits.partition(".")[2])
    rounding = 0.5 * 10.0 ** (int(exponent or 0) - decimals)
    return max(0.01 * float(figure), rounding)


def _active(name: str, counts: str) -> float:
    model = load_model(name)
    if counts == "body":
        counted = parameters(model)
        return counted.active - counted.embedding - counted.head
    return float(active_parameters(model, embedding=counts == "all"))


@pytest.mark.parametrize("name", PUBLISHED)
def test_total_agrees_with_the_published(name: str) -> None:
    figure = PUBLISHED[name][0]
    ours = total_parameters(load_model(name)) / 1e9
    assert ours == pytest.approx(float(figure), abs=_tolerance(figure))


@pytest.mark.parametrize("name", [n for n, row in PUBLISHED.items() if row[1]])
def test_active_agrees_with_the_published(name: str) -> None:
    _, figure, counts, _ = PUBLISHED[name]
    assert _active(name, counts) / 1e9 == pytest.approx(float(figure), abs=_tolerance(figure))


def test_at_least_forty_totals_within_one_percent() -> None:
    close = [
        name
        for name, (figure, *_) in PUBLISHED.items()
        if abs(total_parameters(load_model(name)) / 1e9 / float(figure) - 1) <= 0.01
    ]
    assert len(close) >= 65


def test_rumoured_models_are_marked_and_no_others() -> None:
    rumoured = {name for name in list_models() if load_model(name).provenance == "rumoured"}
    assert rumoured == {"gpt-4", "gpt-3.5", "gpt-3.5-turbo"}


@pytest.mark.parametrize("name", list_models())
def test_every_model_says_where_it_comes_from(name: str) -> None:
    assert len(load_model(name).source) > 10


FACTS = {
    "meta-llama--Meta-Llama-3.1-8B": "llama-3.1-8b",
    "meta-llama--Meta-Llama-3.1-70B": "llama-3.1-70b",
    "meta-llama--Meta-Llama-3.1-405B": "llama-3.1-405b",
    "blis--llama-2-7b-hf": "llama-2-7b",
    "blis--mistral-nemo-instruct-2407": "mistral-nemo",
    "blis--qwen2.5-7b-instruct": "qwen2.5-7b",
    "Qwen--Qwen3-0.6B": "qwen3-0.6b",
    "Qwen--Qwen3-8B": "qwen3-8b",
    "blis--qwen3-14b": "qwen3-14b",
    "Qwen--Qwen3-32B": "qwen3-32b",
    "Qwen--Qwen3-30B-A3B": "qwen3-30b-a3b",
    "Qwen--Qwen3-235B-A22B": "qwen3-235b-a22b",
    "Qwen--Qwen3-Coder-480B-A35B-Instruct": "qwen3-coder-480b",
    "mistralai--Mixtral-8x7B-v0.1": "mixtral-8x7b",
    "mistralai--Mixtral-8x22B-v0.1": "mixtral-8x22b",
    "openai--gpt-oss-20b": "gpt-oss-20b",
    "openai--gpt-oss-120b": "gpt-oss-120b",
    "deepseek-ai--DeepSeek-V3": "deepseek-v3",
    "blis--deepseek-v2-lite": "deepseek-v2-lite",
    "moonshotai--Kimi-K2-Instruct": "kimi-k2",
}


@pytest.mark.parametrize("fact", FACTS)
def test_independent_arithmetic_agrees_exactly(fact: str, shared_data: Path) -> None:
    rows = json.loads((shared_data / "model_facts.json").read_text())
    row = next(row for row in rows if row["model"] == fact)
    for model in (load_model(FACTS[fact]), load_model(shared_data / f"model_configs/{fact}.json")):
        assert total_parameters(model) == row["total"]
        assert active_parameters(model) == row["active"]
        assert kv_bytes_per_token(model, "bf16") == row["kv_bytes_per_token_bf16"]
