"""The arithmetic that the engine prices, kernel by kernel, is that which the counts state."""

from __future__ import annotations

import numpy as np
import pytest

from costsim.engine.deployment import deploy
from costsim.engine.layout import Layout
from costsim.engine.step import step_time
from costsim.hardware.loader import load_hardware
from costsim.models.count import flop_per_token
from costsim.models.loader import list_models, load_model


@pytest.mark.parametrize("name", list_models())
def test_decode_and_prefill_flop_of_a_step(name: str) -> None:
    model = load_model(name)
    deployment = deploy(model, load_hardware("h100_sxm"), Layout())
    decode = step_time(deployment, decode_requests=4, decode_context=4096)
    stated = 4 * flop_per_token(model, 4096, absorbed=True)
    assert float(decode.flop) == pytest.approx(stated, rel=0.02)
    prefill = step_time(deployment, prefill_requests=1, prefill_tokens=2048)
    head = 2.0 * model.vocab_size * model.hidden_size  # of the last token only
    stated = head + np.sum(flop_per_token(model, np.arange(1, 2049), head=False))
    assert float(prefill.flop) == pytest.approx(float(stated), rel=0.02)
