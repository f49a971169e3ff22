"""This package runs ControlNets (arXiv:2302.05543)."""
