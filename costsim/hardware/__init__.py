"""Accelerators, nodes, interconnects and prices as validated data (floor 2)."""

from costsim.hardware.accelerator import Hardware, Link, Price

__all__ = ["Hardware", "Link", "Price"]
