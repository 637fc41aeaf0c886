"""A wheel that is installed elsewhere finds its profiles and scenarios."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent

PROBE = """
import pathlib, costsim
import costsim.library as library
assert "site-packages" in costsim.__file__, costsim.__file__
for kind, name in (("hardware_profiles", "h100_sxm"), ("scenarios", "arrakis")):
    assert "site-packages" in str(library.find(kind, name)), kind
hardware = costsim.load_hardware("h100_sxm")
model = costsim.load_model("llama-3.1-8b")
print(costsim.load_calibration(hardware).name, model.hidden_size)
"""


@pytest.mark.slow
def test_installed_wheel_finds_its_data(tmp_path: Path) -> None:
    pip = [sys.executable, "-m", "pip"]
    build = [*pip, "wheel", "--quiet", "--no-deps", "-w", str(tmp_path / "wheels"), str(REPOSITORY)]
    subprocess.run(build, check=True, cwd=tmp_path)
    (wheel,) = (tmp_path / "wheels").glob("costsim-*.whl")
    # The dependencies are those of the running environment; costsim itself is only the wheel.
    environment = tmp_path / "environment"
    venv.create(environment, with_pip=False)
    (site,) = (environment / "lib").glob("python*/site-packages")
    subprocess.run([*pip, "install", "--quiet", "--no-deps", "--target", str(site), str(wheel)],
                   check=True, cwd=tmp_path)
    (site / "borrowed.pth").write_text("\n".join(p for p in sys.path if "site-packages" in p))
    clean = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run([str(environment / "bin" / "python"), "-c", PROBE], cwd=tmp_path,
                          env=clean, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("h100_sxm")
