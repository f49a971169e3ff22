"""What runs the service: BentoML (with service.py), Ray Serve, and the queue's worker and front."""
