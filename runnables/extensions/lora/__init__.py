"""This package adapts models with LoRAs, low-rank adaptation (arXiv:2106.09685)."""
