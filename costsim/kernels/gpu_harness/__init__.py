"""Measures one GPU: kernels, launches, sparsity and whole decode steps, in one call.

Run with ``python -m costsim.kernels.gpu_harness --output DIR`` (extra ``measure``).
"""
