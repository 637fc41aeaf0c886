"""Names, files and mistakes in them: one clear line each."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from costsim.errors import InputError
from costsim.loading import validate
from costsim.models.count import total_parameters
from costsim.models.describe import describe
from costsim.models.loader import aliases, list_models, load_model
from costsim.models.schema import ModelTable
from costsim.models.writer import import_model, save_model

GOOD = """
source = "made up for a test"
hidden_size = 64
vocab_size = 100

[[layers]]
count = 2
[layers.attention]
heads = 4
kv_heads = 2
head_dim = 16
[layers.ffn]
width = 128
"""


@pytest.mark.parametrize(
    ("spelling", "name"),
    [
        ("llama-3.1-70b", "llama-3.1-70b"),
        ("meta-llama/Llama-3.1-70B", "llama-3.1-70b"),
        ("meta-llama/Meta-Llama-3.1-70B-Instruct", "llama-3.1-70b"),
        ("deepseek-ai/DeepSeek-V3", "deepseek-v3"),
        ("deepseek_v3", "deepseek-v3"),
        ("mistralai/Mixtral-8x7B-Instruct-v0.1", "mixtral-8x7b"),
        ("Qwen/Qwen3-235B-A22B-Instruct-2507", "qwen3-235b-a22b"),
        ("openai/gpt-oss-120b", "gpt-oss-120b"),
        ("google/gemma-3-27b-it", "gemma-3-27b"),
    ],
)
def test_names_of_the_library_and_of_hugging_face(spelling: str, name: str) -> None:
    assert load_model(spelling).name == name


def test_every_alias_leads_to_a_model() -> None:
    for alias, name in aliases().items():
        assert load_model(alias).name == name


def test_unknown_name_suggests_the_nearest() -> None:
    with pytest.raises(InputError, match=r"did you mean 'llama-3\.1-70b'"):
        load_model("lama-3.1-70b")


def test_no_model_of_the_library_leaves_something_unsaid() -> None:
    assert len(list_models()) > 70
    assert any("one stack" in line for line in load_model("switch-c").ignored)


def test_toml_file(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(GOOD)
    model = load_model(tmp_path / "mine.toml")
    assert model.name == "mine" and model.extra_parameters == 64


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("kv_heads = 2", "kv_heads = 3", "not a multiple of 3 kv_heads"),
        ("kv_heads = 2", "kv_head = 2", "did you mean 'kv_heads'"),
        ("width = 128", "width = -1", "greater than or equal to 0"),
        ("width = 128", "width = nan", "width"),
        ("width = 128", "width = 8\nkind = 'moe'\nexperts = 4\ntop_k = 5", "above the 4 experts"),
        ("width = 128", "width = 8\nexperts = 4", "dense ffn has no experts"),
        ("hidden_size = 64", "hidden_size = 6.5", "hidden_size"),
        ("hidden_size = 64", "", "'hidden_size' is missing"),
        ("heads = 4", "heads = 4\nkind = 'sliding'", "needs window"),
        ("heads = 4", "heads = 4\nkind = 'slidng'", "kind"),
        ("count = 2", "count = 0", "count"),
        ("vocab_size = 100", "vocab_size = [", "malformed TOML"),
        ("vocab_size = 100", "vocab_size = 100\n[quantisation]\nffn = 'fp7'", "data type 'fp7'"),
    ],
)
def test_mistakes_in_toml_are_one_line(
    tmp_path: Path, old: str, new: str, expected: str
) -> None:
    path = tmp_path / "mine.toml"
    text = GOOD.replace(old, new, 1)
    if "quantisation" in new:  # a table has to come after the plain keys
        text = GOOD + "\n" + new.partition("\n")[2]
    path.write_text(text)
    with pytest.raises(InputError) as error:
        load_model(path)
    message = str(error.value)
    assert expected in message and "\n" not in message and "mine.toml" in message


def test_missing_files(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        load_model(tmp_path / "nothing.toml")
    with pytest.raises(InputError, match=r"no config\.json"):
        load_model(tmp_path)
    with pytest.raises(InputError, match=r"config\.json"):
        load_model(tmp_path / "config.json")


@pytest.mark.parametrize("name", list_models())
def test_a_model_written_as_toml_reads_back_the_same(name: str, tmp_path: Path) -> None:
    model = load_model(name)
    assert load_model(save_model(model, tmp_path / f"{name}.toml")) == model


def test_import_writes_a_model_under_a_name(tmp_path: Path) -> None:
    table = (
        '{"model_type": "llama", "hidden_size": 64, "num_hidden_layers": 2, "vocab_size": 100,'
        ' "num_attention_heads": 4, "intermediate_size": 128, "mystery": 7}'
    )
    (tmp_path / "config.json").write_text(table)
    model = import_model(tmp_path, "mine")
    assert model.name == "mine" and model.ignored == ("mystery = 7: not modelled",)
    assert load_model(save_model(model, tmp_path)) == model


def test_description_is_plain_data() -> None:
    import json

    told = describe(load_model("deepseek-v3"))
    assert json.loads(json.dumps(told)) == told
    assert told["total_parameters"] == 671_026_419_200
    assert [row["count"] for row in told["layers"]] == [3, 58]
    assert "256 experts of 2048, top 8" in told["layers"][1]["ffn"]
    assert told["by_context"][-1]["kv_bytes"] == 70_272 * 131_072
    assert told["weight_bytes"]["experts"] < 660e9


JUNK = st.one_of(
    st.booleans(), st.integers(-5, 10**12), st.floats(), st.text(max_size=4),
    st.lists(st.integers(), max_size=2), st.dictionaries(st.text(max_size=3), st.integers()),
)


@settings(max_examples=150, deadline=None)
@given(key=st.text(max_size=12), junk=JUNK, place=st.sampled_from(["top", "layer", "attention"]))
def test_junk_in_a_table_gives_a_model_or_one_line(key: str, junk: object, place: str) -> None:
    table = tomllib.loads(GOOD)
    inner = {"top": table, "layer": table["layers"][0],
             "attention": table["layers"][0]["attention"]}[place]
    for name in {key, *list(inner)[:2]}:
        changed = dict(inner)
        inner[name] = junk
        try:
            model = validate(ModelTable, table, "junk.toml").build("junk")
        except InputError as error:
            assert "\n" not in str(error)
        else:
            assert total_parameters(model) >= 0
        inner.clear()
        inner.update(changed)
