"""The hosts that run the service: BentoML (with service.py), Ray Serve, the queue."""
