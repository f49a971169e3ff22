"""Models are served from this folder: the embedded one, and those that are imported."""
