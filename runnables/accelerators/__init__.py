"""Where the tensors live: one file a kind of device."""
