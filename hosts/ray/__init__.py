"""The Ray Serve host: one ingress with the route table, many replicas with the model."""
