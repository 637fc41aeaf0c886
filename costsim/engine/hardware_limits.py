"""Limits that an engine sets by the accelerator it finds itself on."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from costsim.engine.presets import list_engines, load_settings, preset_limits
from costsim.engine.settings import EngineSettings
from costsim.hardware.accelerator import Hardware


def with_hardware_limits(settings: EngineSettings, hardware: Hardware) -> EngineSettings:
    """Return an engine's settings with the limits that it sets on an accelerator by default.

    A limit that differs from the shipped preset's was chosen by the user, and stays.

    Args:
        settings: of a preset, or of one that extends it.
        hardware: with the memory that the rules of ``limits`` in the preset ask for.
    """
    shipped = settings.kernels or settings.name
    if shipped not in list_engines():
        return settings
    default, memory = load_settings(shipped), float(np.max(hardware.memory_bytes))
    for rule in preset_limits(shipped):
        named = any(hardware.name.startswith(start) for start in rule["accelerators"])
        if named or rule["memory_from_bytes"] <= memory < rule["memory_below_bytes"]:
            changes = {name: rule[name] for name in ("max_num_batched_tokens", "max_num_seqs")
                       if rule[name] is not None
                       and getattr(settings, name) == getattr(default, name)}
            return replace(settings, **changes)
    return settings
