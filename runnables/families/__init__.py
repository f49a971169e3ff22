"""Model families: what each needs around its denoiser."""
