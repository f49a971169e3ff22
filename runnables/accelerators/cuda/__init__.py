"""This package runs models on NVIDIA GPUs."""
