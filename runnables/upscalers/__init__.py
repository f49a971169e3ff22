"""Upscalers enlarge pictures, outside of any diffusion model."""
