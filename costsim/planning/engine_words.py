"""Engine settings by name: numbers, words (`costsim.engine.words`) and numbers inside of those."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from costsim.engine.settings import EngineSettings
from costsim.engine.words import checked_speculation, routing_from, speculation_from
from costsim.errors import InputError
from costsim.loading import validate

# Fields of an engine that are words, and how they are read; `experts` only matters to routing.
WORDS: dict[str, Callable[[str, int], Any]] = {
    "speculation": lambda text, experts: speculation_from(text),
    "routing": routing_from,
}
# Numbers inside of those: field -> (setting, attribute).
INSIDE = {
    "draft_tokens": ("speculation", "draft_tokens"),
    "acceptance": ("speculation", "acceptance"),
    "replicated_experts": ("routing", "replicated_experts"),
    "routing_alpha": ("routing", "alpha"),
}


def set_engine_field(
    settings: EngineSettings, field: str, value: Any, relative: bool, experts: int
) -> EngineSettings:
    """Return engine settings with one field changed.

    Args:
        settings: to change.
        field: of `EngineSettings`, or one of `INSIDE`.
        value: number or words; multiplies the present value where ``relative``.
        relative: whether it does.
        experts: of the model.

    Raises:
        InputError: the value is out of range.
    """
    from costsim.engine.preset_schema import Settings

    if field in WORDS:
        return replace(settings, **{field: WORDS[field](str(value), experts)})
    if field in INSIDE:
        return _set_inside(settings, field, value, relative)
    now = getattr(settings, field)
    new = now * value if relative else value
    if isinstance(now, bool):
        new = bool(new)
    elif isinstance(now, int):
        new = round(new)
    validate(Settings, {field: new}, "engine")
    return replace(settings, **{field: new})


def _set_inside(settings: EngineSettings, field: str, value: Any, relative: bool) -> EngineSettings:
    owner, name = INSIDE[field]
    part: Any = getattr(settings, owner)
    if part is None:
        raise InputError(f"engine.{field}: the engine does not draft; set engine.speculation too, "
                         "such as engine.speculation=mtp:1:0.8")
    now = getattr(part, name)
    new = now * value if relative else value
    if field == "routing_alpha":
        return replace(settings, routing=replace(part, kind="power_law", alpha=float(new)))
    if field == "acceptance":
        part = checked_speculation(replace(part, acceptance=float(new)), part.draft_tokens)
    elif field == "draft_tokens":
        part = checked_speculation(replace(part, draft_tokens=round(new)), round(new))
    else:
        part = replace(part, replicated_experts=round(new))
    return replace(settings, **{owner: part})
