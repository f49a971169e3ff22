"""Low-rank adaptation (arXiv:2106.09685)."""
