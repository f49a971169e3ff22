"""The models that can be served: the embedded one, a catalog of others, and what guards them."""
