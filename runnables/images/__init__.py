"""Image files: read and written, with their parameters and provenance."""
