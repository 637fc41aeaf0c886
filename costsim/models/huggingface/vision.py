"""Vision towers: layers, patches, the tokens an image becomes, and exact weights."""

from __future__ import annotations

from costsim.models.architecture import Encoder
from costsim.models.huggingface.config import Config


def _block(width: int, ffn: int, bias: bool = True, norm: int = 4) -> int:
    """Weights of an encoder block: four projections, two FFN matrices, two norms."""
    matrices = 4 * width * width + 2 * width * ffn
    return matrices + (5 * width + ffn if bias else 0) + norm * width


def qwen_vision(v: Config, text_hidden: int) -> Encoder:
    """Qwen3-VL and Qwen3.5: Conv3d patches, learned positions, mergers (one a deepstack level)."""
    width, ffn, depth = v.count("hidden_size"), v.count("intermediate_size"), v.count("depth")
    patch, merge = v.count("patch_size"), v.count("spatial_merge_size", default=2)
    frames, channels = v.count("temporal_patch_size", default=2), v.count("in_channels", default=3)
    out = v.count("out_hidden_size", default=text_hidden)
    merged = width * merge * merge
    merger = merged * merged + merged + merged * out + out
    levels = len(v.items("deepstack_visual_indexes"))
    weights = depth * _block(width, ffn)
    weights += channels * frames * patch * patch * width + width
    weights += v.count("num_position_embeddings", default=0, minimum=0) * width
    weights += merger + 2 * width + levels * (merger + 2 * merged)
    return Encoder(
        "image", depth, width, v.count("num_heads"), ffn, False, weights, patch, merge,
        patch_inputs=channels * frames * patch * patch,
    )


def kimi_vision(v: Config, text_hidden: int) -> Encoder:
    """Kimi K2.5 and K3 (MoonViT): 2x2 patches merged by an MLP."""
    width, ffn = v.count("vt_hidden_size"), v.count("vt_intermediate_size")
    depth, patch = v.count("vt_num_hidden_layers"), v.count("patch_size")
    sides = v.items("merge_kernel_size")
    merge = int(sides[0]) if sides else 2
    rows = v.count("init_pos_emb_height") * v.count("init_pos_emb_width")
    v.value("init_pos_emb_time", "mm_hidden_size", "text_hidden_size", "mm_projector_type")
    v.value("merge_type", "video_attn_type", "mlp_type", "norm_type")
    inner = v.count("qkv_hidden_size", default=width)
    bias = v.flag("attn_bias", default=True)
    merged = width * merge * merge
    block = 4 * width * inner + 2 * width * ffn + 4 * width
    block += 3 * inner + width if bias else 0
    block += ffn + width if v.flag("linear_bias", default=True) else 0
    weights = depth * block + 3 * patch * patch * width + rows * width + 2 * width
    weights += width if v.flag("patch_embed_proj_bias", default=True) else 0
    weights += 2 * width + merged * merged + merged + merged * text_hidden + text_hidden
    heads = v.count("vt_num_attention_heads")
    return Encoder("image", depth, width, heads, ffn, False, weights, patch, merge)

def llama4_vision(v: Config, text_hidden: int) -> Encoder:
    """Llama 4: tiles of a fixed size with a class token, pixel shuffle, a two-layer adapter."""
    width, ffn = v.count("hidden_size"), v.count("intermediate_size")
    depth, patch = v.count("num_hidden_layers"), v.count("patch_size")
    side, channels = v.count("image_size"), v.count("num_channels", default=3)
    ratio = float(v.value("pixel_shuffle_ratio") or 0.5)
    merge = round(1 / ratio)
    inward, outward = v.count("projector_input_dim"), v.count("projector_output_dim")
    joined = v.count("vision_output_dim")
    v.value("multi_modal_projector_bias", "projector_dropout")
    tokens = (side // patch) ** 2
    weights = depth * _block(width, ffn) + channels * patch * patch * width
    weights += width + (tokens + 1) * width + 4 * width
    weights += ffn * inward + outward * outward + joined * text_hidden
    return Encoder(
        "image", depth, width, v.count("num_attention_heads"), ffn, False, weights, patch, merge,
        image_size=side, max_tiles=16,
        patch_inputs=channels * patch * patch,
    )


def gemma4_vision(v: Config, text_hidden: int) -> Encoder:
    """Gemma 4: gated FFN, four norms, pooled to at most ``default_output_length`` tokens."""
    width, ffn = v.count("hidden_size"), v.count("intermediate_size")
    depth, patch = v.count("num_hidden_layers"), v.count("patch_size")
    heads, head_dim = v.count("num_attention_heads"), v.count("head_dim")
    kv_heads = v.count("num_key_value_heads", default=heads)
    inner = (2 * heads + 2 * kv_heads) * head_dim
    block = width * inner + 3 * width * ffn + 4 * width + 2 * head_dim
    weights = depth * block + 3 * patch * patch * width
    weights += 2 * v.count("position_embedding_size") * width + width * text_hidden
    v.value("global_head_dim", "image_seq_length", "video_seq_length", "attention_bias")
    v.value("max_position_embeddings")
    return Encoder(
        "image", depth, width, heads, ffn, True, weights, patch,
        v.count("pooling_kernel_size", default=3),
        max_tokens=v.count("default_output_length", default=0),
        patch_inputs=3 * patch * patch,
    )


def clip_vision(v: Config, text_hidden: int, projector: int) -> Encoder:
    """MiniMax-M3: a CLIP tower with rotary positions, a projector, then 2x2 patches merged."""
    width, ffn = v.count("hidden_size"), v.count("intermediate_size")
    depth, patch = v.count("num_hidden_layers"), v.count("patch_size")
    compress = v.section("img_token_compression_config")
    merge = compress.count("spatial_merge_size", default=2) if compress else 2
    frames = compress.count("temporal_patch_size", default=2) if compress else 1
    if compress:
        compress.value("image_token_compression_method")
    side = v.count("image_size", default=0, minimum=0)
    channels = v.count("num_channels", default=3)
    v.value("projection_dim", "vocab_size", "vision_segment_max_frames")
    merged = text_hidden * merge * merge
    weights = depth * _block(width, ffn) + channels * frames * patch * patch * width + 2 * width
    weights += width * projector + projector + projector * text_hidden + text_hidden
    weights += merged * projector + projector + projector * text_hidden + text_hidden
    limit = (side // patch // merge) ** 2 if side else 0
    return Encoder(
        "image", depth, width, v.count("num_attention_heads"), ffn, False, weights, patch, merge,
        max_tokens=limit,
        patch_inputs=channels * frames * patch * patch,
    )


def qwen2_vision(v: Config, text_hidden: int) -> Encoder:
    """Qwen2-VL: Conv3d patches without bias, rotary positions, one merger."""
    width, depth = v.count("embed_dim"), v.count("depth")
    ffn = round(width * float(v.value("mlp_ratio") or 4))
    patch, merge = v.count("patch_size"), v.count("spatial_merge_size", default=2)
    frames = v.count("temporal_patch_size", default=2)
    channels = v.count("in_channels", "in_chans", default=3)
    out = v.count("hidden_size", default=text_hidden)
    merged = width * merge * merge
    weights = depth * _block(width, ffn) + channels * frames * patch * patch * width
    weights += 2 * width + merged * merged + merged + merged * out + out
    v.value("spatial_patch_size")
    return Encoder(
        "image", depth, width, v.count("num_heads"), ffn, False, weights, patch, merge,
        patch_inputs=channels * frames * patch * patch,
    )


def qwen25_vision(v: Config, text_hidden: int) -> Encoder:
    """Qwen2.5-VL: gated FFN, RMS norms, most layers in windows of ``window_size`` pixels.

    The few layers of full attention count as windowed too; the error is in the attention of large
    images, a small part of a tower's arithmetic.
    """
    width, ffn, depth = v.count("hidden_size"), v.count("intermediate_size"), v.count("depth")
    patch, merge = v.count("patch_size"), v.count("spatial_merge_size", default=2)
    frames, channels = v.count("temporal_patch_size", default=2), v.count("in_channels", default=3)
    out = v.count("out_hidden_size", default=text_hidden)
    v.value("in_chans", "tokens_per_second", "fullatt_block_indexes", "spatial_patch_size")
    merged = width * merge * merge
    block = 4 * width * width + 4 * width + 3 * width * ffn + 2 * ffn + width + 2 * width
    weights = depth * block + channels * frames * patch * patch * width
    weights += width + merged * merged + merged + merged * out + out
    side = v.count("window_size", default=0, minimum=0) // patch
    return Encoder(
        "image", depth, width, v.count("num_heads"), ffn, True, weights, patch, merge,
        window=side * side,
        patch_inputs=channels * frames * patch * patch,
    )


def siglip_vision(v: Config, text_hidden: int, tokens: int) -> Encoder:
    """Gemma 3: SigLIP on images of one size, pooled to ``tokens`` prompt tokens."""
    width, ffn = v.count("hidden_size"), v.count("intermediate_size")
    depth, patch = v.count("num_hidden_layers"), v.count("patch_size")
    side, channels = v.count("image_size"), v.count("num_channels", default=3)
    patches = (side // patch) ** 2
    weights = depth * _block(width, ffn) + channels * patch * patch * width + width
    weights += patches * width + 2 * width + width + width * text_hidden
    v.value("vision_use_head")
    merge = max(1, round((patches / tokens) ** 0.5))
    return Encoder(
        "image", depth, width, v.count("num_attention_heads"), ffn, False, weights, patch, merge,
        max_tokens=tokens, image_size=side,
        patch_inputs=channels * patch * patch,
    )


def pixtral_vision(v: Config, text_hidden: int, merge: int) -> Encoder:
    """Mistral Small 3: Pixtral on images of any size, 2x2 patches merged, no biases."""
    width, ffn = v.count("hidden_size"), v.count("intermediate_size")
    depth, patch = v.count("num_hidden_layers"), v.count("patch_size")
    side, channels = v.count("image_size"), v.count("num_channels", default=3)
    v.value("head_dim", "vocab_size")
    block = 4 * width * width + 3 * width * ffn + 2 * width
    weights = depth * block + channels * patch * patch * width + width
    weights += width + merge * merge * width * width + width * text_hidden
    weights += text_hidden * text_hidden
    return Encoder(
        "image", depth, width, v.count("num_attention_heads"), ffn, True, weights, patch, merge,
        max_tokens=(side // patch // merge) ** 2,
        patch_inputs=channels * patch * patch,
    )
