"""Packages of the wheel: the code, its data folders, and the two folders that users edit."""

from setuptools import find_namespace_packages, setup

# Data folders hold no __init__.py, so that only a search for namespace packages finds them.
CODE = find_namespace_packages(include=["costsim", "costsim.*"],
                               exclude=["*.__pycache__", "*.__pycache__.*"])
EDITED = ["costsim.hardware_profiles", "costsim.hardware_profiles.calibrations",
          "costsim.scenarios"]

setup(packages=[*CODE, *EDITED])
