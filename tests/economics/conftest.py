"""A made-up accelerator for tests of money, so that no profile's update moves them."""

from __future__ import annotations

import pytest

from costsim.hardware import Hardware, Link, Price


@pytest.fixture
def accelerator() -> Hardware:
    return Hardware(
        name="test_accelerator", title="Test", kind="gpu", peak_flop_per_s={"bf16": 1e15},
        memory_bytes=80e9, memory_bandwidth_bytes_per_s=3e12, onchip_memory_bytes=50e6,
        compute_units=132, scale_up=Link(8, 450e9, 1e-6), scale_out=Link(1e4, 50e9, 2e-6),
        host_bandwidth_bytes_per_s=64e9, host_memory_bytes=1e12, tdp_w=700.0, idle_w=100.0,
        server_w_per_accelerator=500.0, list_price_usd=30000.0,
        server_price_usd_per_accelerator=8000.0,
        prices=(
            Price("on_demand", 3.0, "2026-05-01", "a", "A"),
            Price("on_demand", 2.0, "2026-04-01", "b", "B"),
            Price("on_demand", 4.0, "2026-05-18", "c", "C", region="eu"),
            Price("on_demand", 12.0, "2023-01-01", "d", "D"),
            Price("reserved_1y", 1.8, "2026-05-18", "a", "A"),
        ),
    )  # fmt: skip
