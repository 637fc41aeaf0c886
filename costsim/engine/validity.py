"""Which layouts a model allows: checks that raise one clear line, and masks for searches."""

from __future__ import annotations

from typing import Any

import numpy as np

from costsim.engine.layout import Layout
from costsim.errors import InputError
from costsim.models.architecture import Attention, Model


def _attention_heads(model: Model) -> set[int]:
    return {each.mixer.heads for each in model.layers if isinstance(each.mixer, Attention)}


def _kv_heads(model: Model) -> set[int]:
    return {
        each.mixer.kv_heads
        for each in model.layers
        if isinstance(each.mixer, Attention) and each.mixer.kind not in ("mla", "dsa")
    }


def _experts(model: Model) -> set[int]:
    return {each.ffn.experts for each in model.layers if each.ffn and each.ffn.kind == "moe"}


def _layers(model: Model) -> int:
    return sum(each.count for each in model.layers)


def allowed(model: Model, layout: Layout) -> Any:
    """Return a mask of the layouts (fields may be arrays) that a model can be served in."""
    tp, pp, ep = (np.asarray(getattr(layout, k)) for k in ("tp", "pp", "ep"))
    stage = tp * layout.dp * layout.cp
    ok = (stage % ep == 0) & (pp <= _layers(model))
    for heads in _attention_heads(model):
        ok = ok & (heads % tp == 0)
    for kv in _kv_heads(model):
        ok = ok & ((kv % tp == 0) | (tp % kv == 0))
    experts = _experts(model)
    if not experts:
        return ok & (ep == 1)
    for count in experts:
        ok = ok & (ep <= count) & (count % ep == 0)
    return ok


def check_layout(model: Model, layout: Layout, spare_experts: int = 0) -> None:
    """Refuse a layout that a model cannot be served in.

    Args:
        model: what is served; layout: of one replica.
        spare_experts: copies of experts beside the model's own, spread over the ranks with them.

    Raises:
        InputError: one line with the rule that is broken and what is allowed.
    """
    for name in ("tp", "pp", "ep", "dp", "cp"):
        value = getattr(layout, name)
        if int(value) != value or value < 1:
            raise InputError(f"layout {name} = {value}: must be a whole number of at least 1")
    for heads in sorted(_attention_heads(model)):
        if heads % layout.tp:
            fitting = ", ".join(str(n) for n in (1, 2, 4, 8, 16, 32, 64) if heads % n == 0)
            raise InputError(f"tp = {layout.tp} does not divide the {heads} attention heads of "
                             f"{model.name}; allowed: {fitting}")
    for kv in sorted(_kv_heads(model)):
        if kv % layout.tp and layout.tp % kv:
            raise InputError(f"tp = {layout.tp} neither divides nor is a multiple of the {kv} KV "
                             f"heads of {model.name}")
    if layout.pp > _layers(model):
        raise InputError(f"pp = {layout.pp} is more than the {_layers(model)} layers of "
                         f"{model.name}")
    _check_experts(model, layout, spare_experts)


def _check_experts(model: Model, layout: Layout, spare: int) -> None:
    stage = layout.tp * layout.dp * layout.cp
    experts = sorted(_experts(model))
    if layout.ep > 1 and not experts:
        raise InputError(f"ep = {layout.ep}: {model.name} has no experts; ep must be 1")
    if stage % layout.ep:
        raise InputError(f"ep = {layout.ep} does not divide the {stage} accelerators of a stage "
                         "(tp x dp x cp)")
    for count in experts:
        if layout.ep > count or (count + spare) % layout.ep:
            raise InputError(f"ep = {layout.ep} does not divide the {count} experts of "
                             f"{model.name}")
