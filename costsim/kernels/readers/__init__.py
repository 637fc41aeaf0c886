"""Readers that turn other programs' kernel measurements into `KernelTable` (floor 3)."""
