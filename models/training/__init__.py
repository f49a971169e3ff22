"""How the embedded model is trained and measured, and the world that it is trained on."""
