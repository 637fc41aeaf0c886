"""A fingerprint is the same for the same figures, and another for any other."""

from __future__ import annotations

from dataclasses import replace

import costsim
from costsim.kernels.store import load_calibration
from costsim.planning.fingerprint import fingerprint


def test_the_same_figures_have_the_same_fingerprint() -> None:
    h100 = load_calibration(costsim.load_hardware("h100_sxm"))
    copy = replace(h100, surfaces=dict(h100.surfaces))
    assert copy.surfaces is not h100.surfaces and fingerprint(copy) == fingerprint(h100)
    assert fingerprint(h100) == fingerprint(h100)


def test_any_other_figure_has_another() -> None:
    h100 = load_calibration(costsim.load_hardware("h100_sxm"))
    seen = {fingerprint(h100), fingerprint(h100.for_engine("sglang")),
            fingerprint(load_calibration(costsim.load_hardware("b200_sxm")))}  # fmt: skip
    key = sorted(h100.surfaces)[0]
    surface = h100.surfaces[key]
    worse = replace(surface.efficiency, memory=0.99 * surface.efficiency.memory)
    seen.add(fingerprint(replace(h100, surfaces={
        **h100.surfaces, key: replace(surface, efficiency=worse)
    })))  # fmt: skip
    fitted = next(k for k, v in h100.surfaces.items() if v.correction is not None)
    assert h100.surfaces[fitted].correction is not None
    bare = replace(h100.surfaces[fitted], correction=None)
    seen.add(fingerprint(replace(h100, surfaces={**h100.surfaces, fitted: bare})))
    assert len(seen) == 5
