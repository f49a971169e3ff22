"""Textual inversion (arXiv:2208.01618)."""
