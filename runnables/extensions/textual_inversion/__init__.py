"""This package adds textual inversions (arXiv:2208.01618)."""
