"""Networks, and the model folder that a run leaves behind."""
