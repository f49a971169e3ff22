"""What runs the service: the life that hosts share, Ray Serve, and the queue's worker and front."""
