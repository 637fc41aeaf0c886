"""Does sparsity pay: quality laws, fits of one's own runs, cost over a model's life (floor 6)."""
