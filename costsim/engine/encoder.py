"""Time of the vision or audio tower in front of a prompt."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from costsim.engine.deployment import Deployment
from costsim.engine.step import StepTime, finish, pass_of
from costsim.models.architecture import Encoder
from costsim.models.multimodal import EncoderWork, Images, audio_work, image_work
from costsim.ops.queue import Queue


@dataclass(frozen=True)
class EncodedPrompt:
    """What images and audio of a request become.

    Args:
        prompt_tokens: tokens that join the prompt.
        step: time of the encoders.
    """

    prompt_tokens: float
    step: StepTime


def encode(
    deployment: Deployment, images: Images | None = None, audio_s: float = 0.0
) -> EncodedPrompt:
    """Return prompt tokens and encoder time of one request's images and audio.

    The tower runs in 16 bit, sliced over the tensor-parallel ranks, before the prompt's first
    chunk: its matrices as GEMMs of all patches, and its attention's arithmetic with them.

    Args:
        deployment: of a model with such an encoder.
        images: images of the request.
        audio_s: seconds of audio.

    Raises:
        InputError: the model takes no such input.
    """
    queue, model = Queue(), deployment.model
    tokens = 0.0
    if images is not None:
        work = image_work(model, images)
        tokens += work.prompt_tokens
        _add(queue, deployment, _tower(model.encoders, "image"), work)
    if audio_s:
        work = audio_work(model, audio_s)
        tokens += work.prompt_tokens
        _add(queue, deployment, _tower(model.encoders, "audio"), work)
    return EncodedPrompt(tokens, finish(queue.price()))


def _tower(encoders: tuple[Encoder, ...], modality: str) -> Encoder:
    return next(e for e in encoders if e.modality == modality)


def _add(queue: Queue, deployment: Deployment, tower: Encoder, work: EncoderWork) -> None:
    if work.patches <= 0:
        return
    on, ranks = pass_of(deployment), np.asarray(deployment.layout.tp, float)
    width = float(tower.hidden_size)
    # One matrix per layer of the width that gives the layer's arithmetic.
    columns = work.flop / (2.0 * work.patches * width * tower.layers)
    matrices = on.machine("gemm", m=work.patches, n=columns / ranks, k=width, dtype="bf16",
                          activation="bf16")
    queue.add(f"{tower.modality} encoder", matrices, tower.layers)
    moved: Any = work.patches * width * 2.0 * 8.0
    queue.add(f"{tower.modality} encoder", on.machine("elementwise", bytes=moved), tower.layers)
    if np.any(ranks > 1):
        message = work.patches * width * 2.0
        summed = on.machine("all_reduce", ranks=ranks, message_bytes=message)
        queue.add("all-reduce", summed, 2.0 * tower.layers, ranks > 1)
