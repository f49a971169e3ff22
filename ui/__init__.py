"""The web page: draws through the service's jobs API, beside the service or far from it."""
