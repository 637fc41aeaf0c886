"""Images and audio become patches, prompt tokens and encoder work."""

from __future__ import annotations

from dataclasses import replace

import pytest

from costsim.errors import InputError
from costsim.models.architecture import Encoder
from costsim.models.loader import load_model
from costsim.models.multimodal import Images, audio_work, image_work, request_work


@pytest.mark.published
def test_qwen3_vl_tokens_per_image() -> None:
    # patches of 16, 2x2 merged: one token per 32 x 32 pixels (Qwen3-VL preprocessor)
    work = image_work(load_model("qwen3-vl-8b"), Images(1024, 768))
    assert work.prompt_tokens == 32 * 24 and work.patches == 64 * 48


@pytest.mark.published
def test_gemma_3_turns_every_image_into_256_tokens() -> None:
    # Gemma 3 technical report: 896 x 896 images, condensed to 256 vectors
    work = image_work(load_model("gemma-3-27b"), Images(300, 2000, count=3))
    assert work.prompt_tokens == 3 * 256 and work.patches == 3 * 64 * 64


def test_llama_4_cuts_large_images_into_tiles() -> None:
    model = load_model("llama-4-scout")
    small, large = image_work(model, Images(336, 336)), image_work(model, Images(672, 672))
    assert small.prompt_tokens == 144
    assert large.prompt_tokens == 5 * 144  # four tiles and the whole picture


def test_gemma_4_limits_its_tokens() -> None:
    work = image_work(load_model("gemma-4-26b-a4b"), Images(4000, 4000))
    assert 0.85 * 280 < work.prompt_tokens <= 280


@pytest.mark.theory
def test_flop_of_an_image_by_hand() -> None:
    tower = Encoder("image", 2, 8, 2, 16, False, 2 * (4 * 64 + 2 * 8 * 16) + 40, 10, 2)
    model = replace(load_model("llama-3.1-8b"), encoders=(tower,))
    work = image_work(model, Images(40, 40))
    layers = 2 * (4 * 64 + 2 * 8 * 16)
    assert work.patches == 16 and work.prompt_tokens == 4
    assert work.flop == 2 * 16 * (layers + 40 / 4) + 4 * 8 * 2 * 16 * 16


def test_audio_seconds_become_tokens() -> None:
    ear = Encoder("audio", 4, 64, 4, 256, False, 10**6, merge=4, tokens_per_second=12.5)
    model = replace(load_model("llama-3.1-8b"), encoders=(ear,))
    assert audio_work(model, 10.1).prompt_tokens == 127
    assert request_work(model, audio_s=0).flop == 0
    with pytest.raises(InputError, match="audio"):
        audio_work(model, float("nan"))


@pytest.mark.published
def test_voxtral_hears_twelve_and_a_half_tokens_a_second() -> None:
    # Voxtral, arXiv:2507.13264: 50 frames a second, downsampled by four
    work = audio_work(load_model("voxtral-mini-3b"), 60.0)
    assert work.prompt_tokens == 750 and work.patches == 3000


def test_images_and_no_images() -> None:
    model = load_model("qwen3-vl-8b")
    assert image_work(model, Images(100, 100, count=0)).prompt_tokens == 0
    with pytest.raises(InputError, match="takes no image"):
        image_work(load_model("llama-3.1-8b"), Images(100, 100))
    with pytest.raises(InputError, match="height"):
        Images(0, 100)
