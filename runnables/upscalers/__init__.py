"""What enlarges pictures, outside of any diffusion model."""
