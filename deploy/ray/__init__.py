"""Ray Serve: its configuration for one machine, and the Bentos that run it on Kubernetes."""
