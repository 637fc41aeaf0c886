"""Time, memory and cost of training a model, MFU predicted from the layout (floor 6)."""

from costsim.training.estimate import TrainingEstimate, estimate_training
from costsim.training.plan import Failures, TrainingLayout, TrainingPlan
from costsim.training.search import search_layout

__all__ = [
    "Failures",
    "TrainingEstimate",
    "TrainingLayout",
    "TrainingPlan",
    "estimate_training",
    "search_layout",
]
