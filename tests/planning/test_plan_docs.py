"""The examples of the pages on money and planning run as they stand."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from costsim.planning.plan import load_plan

DOCS = Path(__file__).resolve().parents[2] / "docs"


@pytest.mark.parametrize("page", ["economics.md", "plan.md"])
def test_python_examples_run(page: str) -> None:
    text = (DOCS / page).read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, re.S)
    assert blocks
    names: dict[str, Any] = {}
    for block in blocks:
        exec(compile(block, f"docs/{page}", "exec"), names)


def test_the_plan_file_of_the_page_is_valid(tmp_path: Path) -> None:
    text = (DOCS / "plan.md").read_text(encoding="utf-8")
    found = re.search(r"```toml\n(.*?)```", text, re.S)
    assert found is not None
    own = re.search(r"    \[uncertainty\]\n((?:    .*\n)+)", text)
    assert own is not None
    path = tmp_path / "plan.toml"
    path.write_text(found[1] + "\n" + re.sub("^    ", "", own[0], flags=re.M))
    demands, hardware, options = load_plan(path)
    assert [d.name for d in demands] == ["chat", "batch"] and len(hardware) == 2
    assert options.spare == 1 and set(options.uncertain) == {
        "traffic_growth", "price_of_h100_sxm", "interruptions", "prompt length of chat",
        "on_demand price of h100_sxm",
    }  # fmt: skip
