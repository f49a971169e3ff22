"""The web page, which generates through the service's jobs API, beside the service or elsewhere."""
