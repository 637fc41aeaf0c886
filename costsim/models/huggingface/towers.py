"""Which encoders stand in front of a decoder, from ``vision_config`` and ``audio_config``."""

from __future__ import annotations

from costsim.models.architecture import Encoder
from costsim.models.huggingface.audio import POOLING, whisper_encoder
from costsim.models.huggingface.config import Config
from costsim.models.huggingface.vision import (
    clip_vision,
    gemma4_vision,
    kimi_vision,
    llama4_vision,
    pixtral_vision,
    qwen2_vision,
    qwen25_vision,
    qwen_vision,
    siglip_vision,
)

# keys beside the towers' tables that say again what the towers say
_OUTER = (
    "use_unified_vision_chunk", "vision_soft_tokens_per_image", "image_seq_length",
    "img_token_compression_config", "image_grid_pinpoints", "process_image_mode",
    "multimodal_projector_bias", "projection_hidden_size", "projection_layer_norm_eps",
    "hidden_size",
)


def read_encoders(whole: Config, hidden: int) -> tuple[Encoder, ...]:
    """Return the encoders of a config; a tower that is not known is noted in the config.

    Args:
        whole: the outermost table of the config.
        hidden: hidden size of the decoder.
    """
    found: list[Encoder] = []
    sight, hearing = whole.section("vision_config"), whole.section("audio_config")
    if sight is not None or hearing is not None:
        for key in _OUTER:
            whole.value(key)
    if sight is not None:
        tower = _vision(whole, sight, hidden)
        found += [tower] if tower else []
    if hearing is not None:
        tower = _audio(whole, hearing, hidden)
        found += [tower] if tower else []
    return tuple(found)


def _vision(whole: Config, tower: Config, hidden: int) -> Encoder | None:
    tower.value("dtype", "torch_dtype")
    kind = tower.text("model_type")
    projector = whole.count("projector_hidden_size", default=hidden)
    merge = whole.count("spatial_merge_size", default=2)
    tokens = whole.count("mm_tokens_per_image", default=256)
    if tower.has("vt_hidden_size"):
        return kimi_vision(tower, hidden)
    if kind.startswith("qwen2_vl") or tower.has("embed_dim"):
        return qwen2_vision(tower, hidden)
    if kind.startswith("qwen2_5_vl") or tower.has("fullatt_block_indexes"):
        return qwen25_vision(tower, hidden)
    if tower.has("depth"):
        return qwen_vision(tower, hidden)
    if tower.has("pixel_shuffle_ratio"):
        return llama4_vision(tower, hidden)
    readers = {
        "gemma4_vision": lambda: gemma4_vision(tower, hidden),
        "clip_vision_model": lambda: clip_vision(tower, hidden, projector),
        "siglip_vision_model": lambda: siglip_vision(tower, hidden, tokens),
        "pixtral": lambda: pixtral_vision(tower, hidden, merge),
    }
    if kind in readers:
        return readers[kind]()
    whole.ignore(f"vision_config: tower {kind!r} is not known; not modelled")
    tower.value(*tower.table)
    return None


def _audio(whole: Config, tower: Config, hidden: int) -> Encoder | None:
    kind = tower.text("model_type")
    if kind in POOLING:
        return whisper_encoder(tower, hidden, kind)
    whole.ignore(f"audio_config: tower {kind!r} is not known; not modelled")
    tower.value(*tower.table)
    return None
