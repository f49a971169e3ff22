"""AWS Inferentia2."""
