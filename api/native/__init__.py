"""Our own endpoints, with our own parameters."""
