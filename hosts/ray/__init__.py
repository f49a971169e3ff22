"""The Ray Serve host: one front with the route table, many drawers with the model."""
