"""Step-level continuous batching: admission, grouping, the step loop."""
