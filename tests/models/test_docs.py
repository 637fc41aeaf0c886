"""The table of models in the documentation is that of the library."""

from __future__ import annotations

from pathlib import Path
from textwrap import wrap

import pytest

from costsim.files import write_atomically
from costsim.models.count import active_parameters, kv_bytes_per_token, total_parameters
from costsim.models.huggingface import READERS
from costsim.models.loader import load_model

PAGE = Path(__file__).resolve().parents[2] / "docs" / "models.md"
LIBRARY = Path(__file__).resolve().parents[2] / "costsim" / "models" / "library"
BEGIN, END = "<!-- generated: begin -->\n", "<!-- generated: end -->\n"


def _row(name: str) -> str:
    model = load_model(LIBRARY / f"{name}.toml")
    total, active = total_parameters(model) / 1e9, active_parameters(model) / 1e9
    cache = kv_bytes_per_token(model, "bf16") / 1024
    return (
        f"| `{name}` | {model.title} | {total:,.2f} | {active:,.2f} | {cache:,.1f}"
        f" | {model.provenance} |"
    )


def _table() -> str:
    head = (
        "| name | model | total, 1e9 | active, 1e9 | KV KiB per token, bf16 | provenance |\n"
        "|---|---|---:|---:|---:|---|\n"
    )
    rows = "\n".join(_row(path.stem) for path in sorted(LIBRARY.glob("*.toml")))
    kinds = ", ".join(f"`{kind}`" for kind in sorted(READERS, key=str.lower))
    families = "\n".join(wrap(kinds, 99, break_long_words=False, break_on_hyphens=False))
    return f"{head}{rows}\n\nDecoders with a reader, by `model_type`:\n\n{families}\n"


@pytest.mark.golden
def test_documented_table_is_the_library(update_golden: bool) -> None:
    page = PAGE.read_text(encoding="utf-8")
    before, rest = page.split(BEGIN)
    shown, after = rest.split(END)
    if update_golden:
        write_atomically(PAGE, before + BEGIN + _table() + END + after)
        return
    assert shown == _table()
