"""Microbenchmarks of this machine: kernels timed with warm-up, repeats and spread."""
