"""The training and the measurement of the embedded model, and the world that it is trained on."""
