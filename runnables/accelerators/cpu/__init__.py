"""This package runs models on the CPU."""
