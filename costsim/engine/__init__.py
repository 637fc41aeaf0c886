"""Layouts, memory, step time and the steady state of an inference engine (floor 5)."""
