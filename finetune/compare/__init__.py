"""Comparison of finished runs on the same images."""
