"""Training: the engine's loop and what it stands on."""
