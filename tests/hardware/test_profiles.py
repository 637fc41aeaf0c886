"""Every shipped profile: complete, sourced, and physically plausible."""

from __future__ import annotations

import re
from datetime import date
from pathlib import Path

import pytest

from costsim.economics.prices import quotes_of
from costsim.hardware.accelerator import Hardware
from costsim.hardware.loader import load_hardware

FOLDER = Path(__file__).resolve().parents[2] / "hardware_profiles"
SHIPPED = sorted(path.stem for path in FOLDER.glob("*.toml"))
REQUIRED = [
    "a100_sxm_40gb", "a100_sxm_80gb", "a100_pcie_80gb", "h100_pcie", "h100_sxm", "h200_sxm",
    "h800_sxm", "h20", "b200_sxm", "gb200_nvl72", "b300_sxm", "gb300_nvl72", "l4", "l40s",
    "a10g", "rtx_4090", "rtx_pro_6000", "mi300x", "mi325x", "mi355x", "tpu_v4", "tpu_v5e",
    "tpu_v5p", "tpu_v6e", "trainium2", "inferentia2", "gaudi2", "gaudi3", "groq_lpu",
    "cerebras_wse3", "maia100", "cpu_generic", "h100_nvl", "h200_nvl", "gh200_96gb", "gh200_144gb",
    "rtx_5090", "mi350x", "trainium3", "tpu_v7x",
]
# SRAM machines hold weights where a GPU has its cache.
SRAM = ("groq_lpu", "cerebras_wse3")


def test_all_asked_for_are_there() -> None:
    assert set(REQUIRED) <= set(SHIPPED)


@pytest.fixture(params=SHIPPED)
def hardware(request: pytest.FixtureRequest) -> Hardware:
    return load_hardware(str(FOLDER / f"{request.param}.toml"))


def test_every_figure_has_a_source_and_a_date(hardware: Hardware) -> None:
    assert len(hardware.sources) >= 18
    for field, about in hardware.sources.items():
        assert len(about["source"]) > 3, field
        date.fromisoformat(about["retrieved"])
        if about["provenance"] != "unverified":
            assert not about["source"].startswith("unverified"), field


def test_every_price_has_a_source_and_a_date(hardware: Hardware) -> None:
    quotes = quotes_of(hardware)
    assert quotes
    for price in quotes:
        assert re.fullmatch(r"20\d\d(-\d\d){0,2}", price.date)
        assert 0.01 < float(price.usd_per_hour) < 500 and len(price.source) > 3


def test_ridge_point_is_plausible(hardware: Hardware) -> None:
    peak = hardware.peak("bf16")
    ridge = float(peak / hardware.memory_bandwidth_bytes_per_s)
    low, high = (0.5, 5) if hardware.name in SRAM else (5, 700)
    assert low < ridge < high


def test_rates_rise_as_types_narrow(hardware: Hardware) -> None:
    rates = hardware.peak_flop_per_s
    order = [rates[k] for k in ("fp32", "tf32", "bf16", "fp8", "fp4") if k in rates]
    assert order == sorted(order)
    # Trainium 3 gained with 8 bits alone; GeForce cards halve 8 bits with fp32 sums, not fp4.
    if {"bf16", "fp8"} <= set(rates):
        limit = 3.8 if hardware.name == "trainium3" else 2.05
        assert 1.0 <= rates["fp8"] / rates["bf16"] <= limit
    if {"fp8", "fp4"} <= set(rates):
        assert 1.9 <= rates["fp4"] / rates["fp8"] <= (4.01 if "rtx" in hardware.name else 3.5)


def test_links_are_slower_than_memory_and_near_ones_faster(hardware: Hardware) -> None:
    up, out = hardware.scale_up, hardware.scale_out
    if up.domain_size > 1 and hardware.name not in SRAM:
        assert 0.01 < up.bandwidth_bytes_per_s / hardware.memory_bandwidth_bytes_per_s < 0.6
    if up.domain_size > 1:
        assert out.bandwidth_bytes_per_s <= up.bandwidth_bytes_per_s
    # Cards that talk over PCIe wait for the host, longer than a network card does.
    slow = 2.0 if up.bandwidth_bytes_per_s <= 64e9 else 1.0
    assert 0 < up.latency_s <= slow * out.latency_s < 1e-3


def test_power_and_energy_per_flop(hardware: Hardware) -> None:
    assert 0 < hardware.idle_w < hardware.tdp_w
    joule_per_flop = hardware.tdp_w / max(hardware.peak_flop_per_s.values())
    assert 1e-14 < joule_per_flop < 1e-10


def test_calibrations_named_are_shipped(hardware: Hardware) -> None:
    for name in (hardware.calibration, hardware.borrowed_calibration):
        if name and hardware.calibration != "gb300":
            assert (FOLDER / "calibrations" / f"{name}.json").is_file()


# (profile, rate, dense, what marketing prints with 2:4 sparsity)
SPARSE = [("h100_sxm", "bf16", 989e12, 1979e12), ("h100_sxm", "fp8", 1979e12, 3958e12),
          ("a100_sxm_80gb", "bf16", 312e12, 624e12), ("l40s", "bf16", 362e12, 733e12),
          ("l4", "fp8", 242e12, 485e12), ("b200_sxm", "fp8", 4500e12, 9000e12),
          ("mi300x", "fp8", 2615e12, 5230e12), ("mi300x", "bf16", 1307e12, 2615e12),
          ("trainium2", "bf16", 667e12, 2563e12), ("h100_nvl", "bf16", 835e12, 1671e12),
          ("h200_nvl", "fp8", 1670e12, 3341e12), ("trainium3", "bf16", 671e12, 2517e12)]


@pytest.mark.published
@pytest.mark.parametrize(("name", "rate", "dense", "sparse"), SPARSE)
def test_peak_rates_are_dense(name: str, rate: str, dense: float, sparse: float) -> None:
    peak = float(load_hardware(name).peak_flop_per_s[rate])
    assert peak == pytest.approx(dense, rel=0.01) and peak < 0.6 * sparse


# NVLink and its like are sold with both directions added up.
@pytest.mark.published
@pytest.mark.parametrize(("name", "both_directions"), [
    ("a100_sxm_80gb", 600e9), ("h100_sxm", 900e9), ("h800_sxm", 400e9), ("b200_sxm", 1800e9),
    ("mi300x", 896e9), ("tpu_v5e", 400e9), ("tpu_v6e", 800e9),
    ("h100_nvl", 600e9), ("h200_nvl", 900e9), ("mi350x", 1071e9), ("tpu_v7x", 1200e9)])
def test_links_are_per_direction(name: str, both_directions: float) -> None:
    half = float(load_hardware(name).scale_up.bandwidth_bytes_per_s)
    assert half == pytest.approx(both_directions / 2, rel=0.01)


@pytest.mark.peers
def test_figures_credited_to_aiconfigurator_are_its_figures(silicon: Path) -> None:
    yaml = pytest.importorskip("yaml")
    keys = {"compute.bf16": ("gpu", "bfloat16_tc_flops"), "compute.fp8": ("gpu", "fp8_tc_flops"),
            "memory.capacity": ("gpu", "mem_capacity"), "memory.bandwidth": ("gpu", "mem_bw"),
            "power.tdp": ("gpu", "power"), "scale_up.bandwidth": ("node", "intra_node_bw")}
    compared = 0
    for name in SHIPPED:
        hardware = load_hardware(name)
        for key, (part, theirs) in keys.items():
            found = re.search(r"system file (\w+\.yaml)", hardware.sources.get(key, {}).get(
                "source", ""))
            if found and not hardware.sources[key]["source"].startswith("unverified"):
                system = yaml.safe_load((silicon / "systems" / found.group(1)).read_text())
                assert _field(hardware, key) == pytest.approx(system[part][theirs], rel=0.003), (
                    name, key)
                compared += 1
    assert compared >= 50


def _field(hardware: Hardware, key: str) -> float:
    table, field = key.split(".")
    if table == "compute":
        return float(hardware.peak_flop_per_s[field])
    return float({"memory.capacity": hardware.memory_bytes,
                  "memory.bandwidth": hardware.memory_bandwidth_bytes_per_s,
                  "power.tdp": hardware.tdp_w,
                  "scale_up.bandwidth": hardware.scale_up.bandwidth_bytes_per_s}[key])
