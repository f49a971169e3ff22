"""Image files are read and written here, with their parameters and provenance."""
