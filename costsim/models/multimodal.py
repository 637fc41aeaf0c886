"""Images and audio in a request: patches, prompt tokens and the encoder's arithmetic.

An image of H x W pixels is cut into patches of p x p, (H/p)·(W/p) of them go through the encoder,
and ``merge`` x ``merge`` patches become one prompt token. Towers with a fixed input (Gemma 3,
Llama 4) scale the image, or the tiles they cut it into, to ``image_size`` first.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from costsim.errors import InputError
from costsim.models.architecture import Encoder, Model

_SIDE_LIMIT = 100_000


@dataclass(frozen=True)
class Images:
    """Images of one request, all of one size.

    Args:
        height, width: pixels.
        count: how many.
    """

    height: int
    width: int
    count: int = 1

    def __post_init__(self) -> None:
        """Refuse sizes that cannot be."""
        for name in ("height", "width"):
            value = getattr(self, name)
            if not 1 <= value <= _SIDE_LIMIT:
                raise InputError(f"image {name} = {value}; must be 1 to {_SIDE_LIMIT} pixels")
        if not 0 <= self.count <= 10_000:
            raise InputError(f"image count = {self.count}; must be 0 to 10000")


def images_from(text: str | None) -> Images | None:
    """Return the images of text such as ``1024x768`` or ``2x1024x768``; None for none.

    Raises:
        InputError: it is neither ``HEIGHTxWIDTH`` nor ``COUNTxHEIGHTxWIDTH``.
    """
    if text is None:
        return None
    parts = text.lower().split("x")
    if len(parts) not in (2, 3) or not all(part.strip().isdigit() for part in parts):
        raise InputError(f"images '{text}': must look like 1024x768 (height, width in pixels) or "
                         "2x1024x768 (two of them)")
    *count, height, width = (int(part) for part in parts)
    return Images(height, width, *count)


@dataclass(frozen=True)
class EncoderWork:
    """What the encoders add to one request.

    Args:
        patches: tokens that go through encoders.
        prompt_tokens: tokens that join the prompt.
        flop: arithmetic of encoders and projectors.
        weight_bytes: weights read once, 16 bit.
    """

    patches: float
    prompt_tokens: float
    flop: float
    weight_bytes: float

    def __add__(self, other: EncoderWork) -> EncoderWork:
        """Return the work of both."""
        return EncoderWork(
            self.patches + other.patches,
            self.prompt_tokens + other.prompt_tokens,
            self.flop + other.flop,
            self.weight_bytes + other.weight_bytes,
        )


NO_WORK = EncoderWork(0.0, 0.0, 0.0, 0.0)


def _encoder(model: Model, modality: str) -> Encoder:
    for encoder in model.encoders:
        if encoder.modality == modality:
            return encoder
    has = ", ".join(sorted({e.modality for e in model.encoders})) or "text"
    raise InputError(f"{model.name}: takes no {modality} input (it takes {has})")


def _tiles(encoder: Encoder, images: Images) -> tuple[int, int, int]:
    """Return (tiles, height, width in patches) of one image."""
    patch, side = encoder.patch_size, encoder.image_size
    if not side:
        step = patch * encoder.merge
        rows = max(1, round(images.height / step)) * encoder.merge
        columns = max(1, round(images.width / step)) * encoder.merge
        return 1, *_within_limit(encoder, rows, columns)
    across = min(max(1, encoder.max_tiles), -(-images.width // side))
    down = min(max(1, encoder.max_tiles) // across or 1, -(-images.height // side))
    tiles = across * down
    # a picture cut into tiles goes through once more as a whole, scaled down
    tiles += 1 if encoder.max_tiles and tiles > 1 else 0
    return tiles, side // patch, side // patch


def _within_limit(encoder: Encoder, rows: int, columns: int) -> tuple[int, int]:
    """Return rows and columns of patches, scaled down where the tower limits its tokens."""
    tokens = rows * columns / encoder.merge**2
    if encoder.max_tokens and tokens > encoder.max_tokens:
        scale = (encoder.max_tokens / tokens) ** 0.5
        step = encoder.merge
        rows = max(step, int(rows * scale / step) * step)
        columns = max(step, int(columns * scale / step) * step)
    return rows, columns


def encoder_flop(encoder: Encoder, patches: Any, sequences: Any = 1.0) -> Any:
    """Return the arithmetic of an encoder: 2 per weight and patch, and full attention.

    Args:
        encoder: the tower; its weights stand for all matrices, projector included.
        patches: tokens through it, number or array.
        sequences: into how many sequences they fall (attention stays inside one).
    """
    patches = np.asarray(patches, dtype=float)
    length = patches / sequences
    seen = np.minimum(length, encoder.window) if encoder.window else length
    attention = 4.0 * encoder.hidden_size * encoder.layers * patches * seen
    return 2.0 * _matrix_weights(encoder) * patches + attention


def _matrix_weights(encoder: Encoder) -> float:
    """Weights that each patch multiplies: those of the layers, and the projector's share."""
    width, ffn = encoder.hidden_size, encoder.ffn_width
    layers = encoder.layers * (4 * width * width + (3 if encoder.gated else 2) * width * ffn)
    first = width * encoder.patch_inputs
    rest = max(0, encoder.parameters - layers - first)
    merged = encoder.merge**2 if encoder.modality == "image" else encoder.merge
    return layers + first + rest / merged


def image_work(model: Model, images: Images) -> EncoderWork:
    """Return what images add to a request.

    Args:
        model: a model with an image encoder.
        images: their size and number.

    Raises:
        InputError: the model takes no images.
    """
    encoder = _encoder(model, "image")
    tiles, rows, columns = _tiles(encoder, images)
    sequences = tiles * images.count
    patches = float(sequences * rows * columns)
    if not images.count:
        return NO_WORK
    tokens = patches / encoder.merge**2
    flop = float(encoder_flop(encoder, patches, sequences))
    return EncoderWork(patches, tokens, flop, 2.0 * encoder.parameters)


def audio_work(model: Model, seconds: float) -> EncoderWork:
    """Return what audio adds to a request.

    Args:
        model: a model with an audio encoder.
        seconds: length of the audio.

    Raises:
        InputError: the model takes no audio, or the length is negative or not a number.
    """
    encoder = _encoder(model, "audio")
    if not 0 <= seconds <= 10**6:
        raise InputError(f"audio = {seconds} s; must be 0 to 1000000 seconds")
    if not seconds:
        return NO_WORK
    tokens = float(np.ceil(seconds * encoder.tokens_per_second))
    patches = tokens * encoder.merge
    flop = float(encoder_flop(encoder, patches))
    return EncoderWork(patches, tokens, flop, 2.0 * encoder.parameters)


def request_work(model: Model, images: Images | None = None, audio_s: float = 0.0) -> EncoderWork:
    """Return what images and audio of one request add to it.

    Args:
        model: the model.
        images: images of the request, or None.
        audio_s: seconds of audio.
    """
    work = image_work(model, images) if images is not None else NO_WORK
    return work + audio_work(model, audio_s) if audio_s else work
