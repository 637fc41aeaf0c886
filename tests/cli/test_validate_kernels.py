"""``costsim validate kernels`` fails on a table of another device, or one below its rate."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from costsim.cli import cli
from costsim.hardware.loader import load_hardware
from costsim.kernels.store import load_calibration
from costsim.kernels.table import make_table, write_csv


@pytest.mark.parametrize(("slower", "code"), [(1.0, 0), (2.0, 1)])
def test_a_table_at_half_the_rate_fails(tmp_path: Path, slower: float, code: int) -> None:
    hardware = load_hardware("h100_sxm")
    shape = {"m": 2.0 ** np.arange(4, 12), "n": 4096.0, "k": 4096.0}
    seconds = load_calibration(hardware).for_engine("vllm").latency(
        "gemm", hardware, **shape).seconds
    table = make_table("gemm", shape, slower * seconds, software="vllm", device="h100")
    path = write_csv(tmp_path / "table.csv", [table])
    result = CliRunner().invoke(cli, ["validate", "kernels", "h100_sxm", "--table", str(path)])
    assert result.exit_code == code, result.output
    assert ("times the predicted ones" in result.output) == bool(code)
