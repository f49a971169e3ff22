"""This package runs models on AWS Inferentia2."""
