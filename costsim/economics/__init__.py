"""Prices, ownership, energy, and what a query and a token cost (floor 6; no simulator in it)."""
