"""This package runs Stable Diffusion: it knows images, tensors and time, but nothing of HTTP."""
