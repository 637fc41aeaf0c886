"""Audio towers built like Whisper's encoder (arXiv:2212.04356): 50 frames a second, then pooled."""

from __future__ import annotations

from costsim.models.architecture import Encoder
from costsim.models.huggingface.config import Config

# frames that become one prompt token: Voxtral stacks four, Qwen2-Audio averages two
POOLING = {"voxtral_encoder": 4, "qwen2_audio_encoder": 2}
_FRAMES_PER_SECOND = 50.0


def whisper_encoder(a: Config, text_hidden: int, kind: str) -> Encoder:
    """Return the audio tower of Voxtral or Qwen2-Audio, with its projector.

    Args:
        a: the table ``audio_config``.
        text_hidden: hidden size of the decoder.
        kind: ``model_type`` of the tower, a key of `POOLING`.
    """
    width = a.count("d_model", "hidden_size")
    ffn = a.count("encoder_ffn_dim", "intermediate_size")
    depth = a.count("encoder_layers", "num_hidden_layers")
    heads = a.count("encoder_attention_heads", "num_attention_heads")
    frames = a.count("max_source_positions", default=1500)
    a.value("vocab_size", "head_dim", "num_key_value_heads", "encoder_layerdrop", "scale_embedding")
    block = 4 * width * width + 3 * width + 2 * width * ffn + ffn + width + 4 * width
    mels = a.count("num_mel_bins", default=128)
    weights = depth * block + frames * width + 2 * width
    weights += 3 * mels * width + width + 3 * width * width + width
    if kind == "voxtral_encoder":
        weights += ffn * text_hidden + text_hidden * text_hidden
    else:
        weights += width * text_hidden + text_hidden
    pooling = POOLING[kind]
    return Encoder(
        "audio", depth, width, heads, ffn, False, weights, merge=pooling, window=frames,
        tokens_per_second=_FRAMES_PER_SECOND / pooling,
        # two convolutions of three taps; the first runs at twice the frames
        patch_inputs=3 * width + 6 * mels,
    )
