"""ControlNet (arXiv:2302.05543)."""
