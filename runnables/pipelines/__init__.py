"""What each model family needs around its UNet."""
