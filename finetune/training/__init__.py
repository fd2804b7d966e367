"""Training: prepares a run, trains it, and writes its records, checkpoints and model."""
