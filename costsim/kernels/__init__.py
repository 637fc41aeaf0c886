"""The measured layer: kernel tables, their fit, and the time of a kernel (floor 3)."""
