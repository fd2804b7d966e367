"""Weights: reading files that cannot run code, translating names, loading exactly."""
