"""This package finds, imports and loads models from disk and from the Hub."""
