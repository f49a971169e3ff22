"""A model family has what its models need around their denoiser."""
