"""What every API here needs of HTTP."""
