"""Measures one GPU: kernels in captured graphs, launches, sparsity and whole decode steps.

``costsim calibrate --backend cuda --output DIR`` runs all of it in one call (extra ``measure``).
"""
