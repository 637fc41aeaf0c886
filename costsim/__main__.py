"""``python -m costsim``."""

from costsim.cli import main

main()
