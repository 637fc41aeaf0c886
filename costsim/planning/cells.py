"""One model on one accelerator for one workload of a scenario, priced."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from costsim.engine.deployment import deploy
from costsim.engine.layout import Layout
from costsim.engine.presets import load_settings
from costsim.engine.settings import Routing
from costsim.errors import InputError
from costsim.planning.choose import choose
from costsim.planning.estimate import estimate_deployment
from costsim.planning.results import Cell
from costsim.planning.scenario import HardwareEntry, ModelEntry, Scenario, Workload


def deployment_of(scenario: Scenario, model: ModelEntry, hardware: HardwareEntry,
                  workload: Workload) -> Any:
    """Return what a scenario would deploy, layout still open."""
    settings = load_settings(scenario.engine)
    if model.routing_alpha:
        settings = replace(settings, routing=Routing("power_law", model.routing_alpha))
    if workload.cached_share:
        settings = replace(settings, prefix_hit_share=workload.cached_share)
    return deploy(model.model, hardware.hardware, Layout(), model.precision, settings)


def prompt_tokens(model: ModelEntry, workload: Workload) -> float:
    """Return a workload's prompt tokens for a model, its images included."""
    if workload.images is None:
        return workload.isl
    from costsim.models.multimodal import Images, image_work

    count, height, width = workload.images
    return workload.isl + image_work(model.model, Images(height, width, count)).prompt_tokens


def price_cell(scenario: Scenario, model: ModelEntry, hardware: HardwareEntry, workload: Workload
               ) -> Cell:
    """Return the cheapest layout and batch within the targets, or why there is none."""
    limit = min(scenario.max_accelerators, hardware.limit)
    try:
        isl = prompt_tokens(model, workload)
        asked = deployment_of(scenario, model, hardware, workload)
        found = choose(asked, isl=isl, osl=workload.osl, target=workload.target,
                       max_accelerators=limit)
        estimate = estimate_deployment(found.deployment, batch=found.batch, isl=isl,
                                       osl=workload.osl, price=hardware.price)
    except InputError as error:
        return Cell(model, hardware, workload, None, None, str(error))
    reason = "" if found.met else f"misses {workload.target}"
    return Cell(model, hardware, workload, found, estimate, reason)
