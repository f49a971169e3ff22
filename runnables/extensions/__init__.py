"""What a request may add to a model, one folder or file per extension."""
