"""Variants of a model for studies of sparsity: other experts at equal active or total weights.

A variant keeps hidden size, layers and attention; only the feed-forward parts change. Widths are
rounded to a multiple of 64 so that they can be sliced; the error this makes is below
32 / (expert width) of the feed-forward weights, and `deviation` states it for a given pair.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Literal

from costsim.errors import InputError
from costsim.models.architecture import Attention, FeedForward, Layers, Model, is_moe
from costsim.models.count import active_parameters, total_parameters

Keep = Literal["active", "total"]
_ROUND_TO = 64


def _rounded(width: float) -> int:
    return max(_ROUND_TO, round(width / _ROUND_TO) * _ROUND_TO)


def _width(ffn: FeedForward, keep: Keep) -> int:
    """Return the inner width a token uses, or the inner width of everything that is stored."""
    if ffn.kind != "moe":
        return ffn.width
    return (ffn.top_k if keep == "active" else ffn.experts) * ffn.width + ffn.shared_width


def _replace_ffn(
    base: Model, change: Callable[[FeedForward], FeedForward], name: str, what: str
) -> Model:
    """Return the model with its MoE FFNs changed, or all FFNs where it has no MoE."""
    moe = is_moe(base)
    layers: list[Layers] = []
    for each in base.layers:
        wanted = each.ffn is not None and (not moe or each.ffn.kind == "moe")
        layers.append(replace(each, ffn=change(each.ffn)) if wanted and each.ffn else each)
    if tuple(layers) == base.layers and not any(each.ffn for each in base.layers):
        raise InputError(f"{base.name}: has no feed-forward layers to vary")
    return _hypothetical(base, name, what, layers=tuple(layers))


def _hypothetical(base: Model, name: str, what: str, **changes: object) -> Model:
    provenance = base.provenance if base.provenance == "rumoured" else "hypothetical"
    return replace(
        base,
        name=name or f"{base.name}-{what}",
        title=name or f"{base.title}, {what}",
        provenance=provenance,
        source=f"variant of {base.name}: {what}; {base.source}",
        mtp_layers=0,
        mtp_parameters=0,
        **changes,  # type: ignore[arg-type]
    )


def moe_variant(
    base: Model,
    *,
    experts: int,
    top_k: int,
    keep: Keep,
    shared_experts: int = 0,
    name: str = "",
) -> Model:
    """Return a model like ``base`` with other experts and (nearly) equal weights.

    Args:
        base: dense or MoE; where it has MoE layers only those change.
        experts, top_k: routed experts per layer, and how many each token uses.
        keep: ``"active"``: the inner width a token uses stays, top_k + shared_experts experts
            share it; ``"total"``: the inner width of all experts together stays.
        shared_experts: experts that every token uses, each as wide as a routed one.
        name: of the variant; "" makes one.

    Raises:
        InputError: ``top_k`` is not in 1 … ``experts``, or a number is negative.
    """
    if experts < 1 or not 1 <= top_k <= experts or shared_experts < 0:
        raise InputError(
            f"moe_variant: need 1 <= top_k <= experts and shared_experts >= 0, got top_k {top_k},"
            f" experts {experts}, shared_experts {shared_experts}"
        )
    if keep not in ("active", "total"):
        raise InputError(f"moe_variant: keep = {keep!r}; allowed: 'active', 'total'")
    sharers = (top_k if keep == "active" else experts) + shared_experts

    def change(ffn: FeedForward) -> FeedForward:
        width = _rounded(_width(ffn, keep) / sharers)
        return replace(
            ffn, kind="moe", width=width, experts=experts, top_k=top_k, groups=0, top_groups=0,
            shared_width=shared_experts * width, shared_gate=False,
        )

    shared = f" + {shared_experts} shared" if shared_experts else ""
    return _replace_ffn(base, change, name, f"{experts} experts, top {top_k}{shared}, equal {keep}")


def dense_of_equal(base: Model, keep: Keep, name: str = "") -> Model:
    """Return the dense model with the inner width a token uses, or that is stored in all.

    Args:
        base: an MoE model (a dense one comes back with its name changed).
        keep: ``"active"`` or ``"total"``.
        name: of the variant; "" makes one.
    """

    def change(ffn: FeedForward) -> FeedForward:
        return FeedForward("dense", _rounded(_width(ffn, keep)), gated=ffn.gated, bias=ffn.bias)

    return _replace_ffn(base, change, name, f"dense, equal {keep}")


def finer_experts(base: Model, granularity: int, name: str = "") -> Model:
    """Return the model with each expert cut into ``granularity`` narrower ones.

    Total and active weights stay (Krajewski et al. 2024, arXiv:2402.07871: G). Routed experts and
    top_k are multiplied; shared experts stay.

    Raises:
        InputError: the model has no experts, or ``granularity`` is below 1.
    """
    if granularity < 1:
        raise InputError(f"finer_experts: granularity = {granularity}; must be >= 1")
    if not is_moe(base):
        raise InputError(f"{base.name}: has no experts to cut finer")

    def change(ffn: FeedForward) -> FeedForward:
        return replace(
            ffn, experts=ffn.experts * granularity, top_k=ffn.top_k * granularity,
            width=_rounded(ffn.width / granularity),
        )

    return _replace_ffn(base, change, name, f"experts cut by {granularity}")


def pruned(
    base: Model, *, layers: float = 1.0, ffn: float = 1.0, heads: float = 1.0, name: str = ""
) -> Model:
    """Return a model with a share of its structure removed (structured pruning).

    Args:
        base: the model.
        layers, ffn, heads: shares kept, in (0, 1]: of the layers of each kind, of the inner width
            of each FFN or expert, and of the query heads (in whole KV groups).
        name: of the variant; "" makes one.

    Raises:
        InputError: a share is outside (0, 1].
    """
    for what, share in (("layers", layers), ("ffn", ffn), ("heads", heads)):
        if not 0 < share <= 1:
            raise InputError(f"pruned: {what} = {share}; must be above 0 and at most 1")
    kept = tuple(_pruned_layers(each, layers, ffn, heads) for each in base.layers)
    what = f"pruned to {layers:g} layers, {ffn:g} ffn, {heads:g} heads"
    return _hypothetical(base, name, what, layers=kept)


def _pruned_layers(each: Layers, layers: float, ffn: float, heads: float) -> Layers:
    feed, mixer = each.ffn, each.mixer
    if feed is not None:
        shared = _rounded(feed.shared_width * ffn) if feed.shared_width else 0
        feed = replace(feed, width=_rounded(feed.width * ffn), shared_width=shared)
    if isinstance(mixer, Attention) and heads < 1:
        kv_heads = max(1, round(mixer.kv_heads * heads))
        group = mixer.heads // mixer.kv_heads
        query = group * kv_heads if mixer.kv_heads > 1 else max(1, round(mixer.heads * heads))
        mixer = replace(mixer, heads=query, kv_heads=kv_heads)
    return replace(each, count=max(1, round(each.count * layers)), mixer=mixer, ffn=feed)


def quantised(
    base: Model, weights: str, *, activation: str = "", kv: str = "", name: str = ""
) -> Model:
    """Return the model with all weights but embedding and head stored in one data type.

    Args:
        base: the model.
        weights: key of `costsim.dtypes.BYTES_PER_ELEMENT`.
        activation: of GEMM inputs; "": as it was (weight-only quantisation).
        kv: of the cache; "": as it was.
        name: of the variant; "" makes one.

    Raises:
        InputError: a data type is unknown.
    """
    from costsim.dtypes import bytes_per_element

    was = base.quantisation
    now = replace(
        was, attention=weights, ffn=weights, experts=weights,
        activation=activation or was.activation, kv=kv or was.kv,
    )
    for dtype in (now.attention, now.activation, now.kv):
        bytes_per_element(dtype)
    what = f"{weights} weights"
    return replace(base, name=name or f"{base.name}-{weights}", quantisation=now,
                   title=name or f"{base.title}, {what}")


def deviation(variant: Model, base: Model, keep: Keep) -> float:
    """Return by which share the variant's kept weights differ from the base's (signed)."""
    count = active_parameters if keep == "active" else total_parameters
    return float(count(variant) / count(base) - 1)
