"""Profiles are found by name, inherited, refused with one line, saved and read back."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from costsim.errors import InputError
from costsim.hardware.loader import list_hardware, load_hardware, save_hardware

PROFILE = """
title = "Test"
vendor = "V"
kind = "gpu"
[compute]
source = "here"
bf16 = "100 TFLOP/s"
compute_units = 10
[memory]
source = "here"
capacity = "10 GB"
bandwidth = "1 TB/s"
onchip = "10 MB"
[scale_up]
source = "here"
domain_size = 8
bandwidth = "100 GB/s"
latency = "1 us"
[scale_out]
source = "here"
domain_size = 64
bandwidth = "400 Gb/s"
latency = "5 us"
[host]
source = "here"
bandwidth = "32 GB/s"
memory = "64 GB"
[power]
source = "here"
tdp = "300 W"
idle = "30 W"
"""


def write(folder: Path, text: str, name: str = "mine") -> str:
    path = folder / f"{name}.toml"
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_figures_are_read_into_si(tmp_path: Path) -> None:
    h = load_hardware(write(tmp_path, PROFILE))
    assert (h.name, h.peak("bf16"), h.memory_bytes) == ("mine", 100e12, 10e9)
    assert h.scale_out.bandwidth_bytes_per_s == 50e9
    assert h.provenance == "datasheet"


def test_a_figure_may_carry_its_own_source(tmp_path: Path) -> None:
    text = PROFILE.replace('bandwidth = "1 TB/s"', 'bandwidth = { value = "1 TB/s", source = '
                           '"a rumour", provenance = "rumoured", retrieved = "2026-01-01" }')
    h = load_hardware(write(tmp_path, text))
    assert h.sources["memory.bandwidth"]["source"] == "a rumour"
    assert h.sources["memory.capacity"]["source"] == "here"
    assert h.provenance == "rumoured"


def test_unverified_source_marks_the_profile(tmp_path: Path) -> None:
    text = PROFILE.replace('[memory]\nsource = "here"', '[memory]\nsource = "unverified: memory"')
    assert load_hardware(write(tmp_path, text)).provenance == "unverified"


def test_extends_inherits_and_overrides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COSTSIM_HOME", str(tmp_path))
    folder = tmp_path / "hardware_profiles"
    folder.mkdir()
    write(folder, PROFILE, "base")
    write(folder, 'extends = "base"\n[memory]\ncapacity = "20 GB"\n', "middle")
    write(folder, 'extends = "middle"\ntitle = "Top"\n[power]\ntdp = "1 kW"\n', "top")
    h = load_hardware("top")
    assert (h.title, h.memory_bytes, h.tdp_w, h.peak("bf16")) == ("Top", 20e9, 1000.0, 100e12)
    assert "top" in list_hardware()


def test_extends_a_shipped_profile(tmp_path: Path) -> None:
    h = load_hardware(write(tmp_path, 'extends = "h100_sxm"\n[memory]\ncapacity = "96 GB"\n'))
    assert h.memory_bytes == 96e9
    assert h.peak("fp8") == load_hardware("h100_sxm").peak("fp8")


def test_a_circle_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COSTSIM_HOME", str(tmp_path))
    folder = tmp_path / "hardware_profiles"
    folder.mkdir()
    write(folder, 'extends = "b"\n', "a")
    write(folder, 'extends = "a"\n', "b")
    with pytest.raises(InputError, match="circle"):
        load_hardware("a")


BAD = [
    ('bandwidth = "1 TB/s"', 'bandwidth = "1 TFLOP/s"', "memory.bandwidth.*a bandwidth is needed"),
    ('bandwidth = "1 TB/s"', 'bandwith = "1 TB/s"', "did you mean 'bandwidth'"),
    ('capacity = "10 GB"', 'capacity = "-1 GB"', "must not be negative"),
    ('capacity = "10 GB"', "capacity = nan", "finite"),
    ('capacity = "10 GB"', "", "memory.capacity' is missing"),
    ('tdp = "300 W"', 'tdp = "300 GB"', "power.tdp.*a power is needed"),
    ('kind = "gpu"', 'kind = "gpus"', "kind"),
    ('title = "Test"', "title = ", "malformed TOML"),
    ('title = "Test"', 'title = "Test"\nextends = "h100_smx"', "did you mean 'h100_sxm'"),
    ('bf16 = "100 TFLOP/s"', "", "names no peak rate"),
    ('domain_size = 8', 'domain_size = "eight"', "domain_size"),
]


@pytest.mark.parametrize(("old", "new", "message"), BAD)
def test_bad_profiles_get_one_line_with_the_file(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    path = write(tmp_path, PROFILE.replace(old, new, 1))
    with pytest.raises(InputError, match=message) as error:
        load_hardware(path)
    assert "mine.toml" in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(("name", "nearest"), [
    ("h100", "h100_"), ("H100-SXM5", "h100_sxm"), ("mi300", "mi300x"), ("tpu_v7", "tpu_v")])
def test_unknown_names_are_suggested(name: str, nearest: str) -> None:
    with pytest.raises(InputError, match=f"did you mean '{nearest}"):
        load_hardware(name)


def test_missing_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        load_hardware(str(tmp_path / "absent.toml"))


rates = st.floats(min_value=1e9, max_value=1e16)


@settings(max_examples=20, deadline=None)
@given(bf16=rates, bandwidth=rates, capacity=rates, title=st.text(
    st.characters(min_codepoint=32, max_codepoint=126), max_size=20))
def test_saved_profile_reads_back(
    tmp_path_factory: pytest.TempPathFactory, bf16: float, bandwidth: float, capacity: float,
    title: str,
) -> None:
    before = load_hardware("cpu_generic").with_fields(
        title=title, peak_flop_per_s={"bf16": bf16, "fp32": bf16 / 2}, calibration="local",
        memory_bandwidth_bytes_per_s=bandwidth, memory_bytes=capacity)
    path = tmp_path_factory.mktemp("profiles") / "local.toml"
    after = load_hardware(save_hardware(before, path, "measured here", "2026-11-24"))
    kept = ("title", "kind", "peak_flop_per_s", "memory_bytes", "memory_bandwidth_bytes_per_s",
            "onchip_memory_bytes", "compute_units", "scale_up", "scale_out", "tdp_w", "idle_w",
            "host_memory_bytes", "calibration", "structured_sparsity")
    assert all(getattr(before, k) == getattr(after, k) for k in kept)
    assert after.provenance == "measured"


def test_missing_rate_falls_back_to_the_next_wider() -> None:
    a100 = load_hardware("a100_sxm_80gb")
    assert a100.peak("fp8") == a100.peak("bf16") and not a100.supports("fp8")
    with pytest.raises(InputError, match="no peak rate for fp32"):
        a100.with_fields(peak_flop_per_s={"bf16": 1.0}).peak("fp32")
