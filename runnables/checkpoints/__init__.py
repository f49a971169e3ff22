"""Models on disk and on the Hub: layout, manifest, catalog, and how they are loaded."""
