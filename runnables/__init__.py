"""Stable Diffusion as a runnable: images, tensors and time, nothing of HTTP."""
