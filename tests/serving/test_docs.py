"""The page on serving: its examples run, and every key of a table is on it."""

from __future__ import annotations

import json
import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from costsim.planning.fleet_file import FleetTable, ReplicasTable, load_fleet
from costsim.planning.simulate import simulate
from costsim.serving.operations import (
    AdmissionTable,
    AutoscalerTable,
    FailuresTable,
    LinkTable,
    RestartTable,
)
from costsim.serving.routers import ROUTERS
from costsim.serving.scheduler import POLICIES, Scheduler
from costsim.serving.traffic_schema import ClassTable, SessionTable, TrafficTable

PAGE = Path(__file__).resolve().parents[2] / "docs/serving.md"


def test_python_examples_run() -> None:
    names: dict[str, Any] = {}
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.S)
    assert len(blocks) >= 2
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), names)


def test_the_fleet_file_runs(tmp_path: Path) -> None:
    found = re.search(r"<!-- example -->\s*```toml\n(.*?)```", PAGE.read_text("utf-8"), re.S)
    assert found is not None
    (tmp_path / "fleet.toml").write_text(found[1])
    outcome = simulate(load_fleet(tmp_path / "fleet.toml"), invariants=True)
    data: dict[str, Any] = outcome.as_dict()
    json.dumps(data)
    assert data["finished"] + data["timed_out"] + data["rejected"] == data["requests"] == 1400
    assert data["classes"]["chat: paid"]["attainment"] > 0.8
    assert data["prefix_hit_share"] > 0.2
    assert len(outcome.result.timelines["time_s"]) > 100


@pytest.mark.parametrize("table", [
    FleetTable, ReplicasTable, TrafficTable, ClassTable, SessionTable, AutoscalerTable,
    AdmissionTable, LinkTable, FailuresTable, RestartTable,
])  # fmt: skip
def test_every_key_is_on_the_page(table: type[BaseModel]) -> None:
    text = PAGE.read_text(encoding="utf-8")
    missing = [name for name in table.model_fields if not re.search(rf"\b{name}\b", text)]
    assert not missing


def test_every_name_is_on_the_page() -> None:
    text = PAGE.read_text(encoding="utf-8")
    names = [*ROUTERS, *POLICIES, *(field.name for field in fields(Scheduler))]
    assert not [name for name in names if f"`{name}" not in text]
