"""Sweeps: one run for each combination of values that the command line lists, and a table of what came of them."""
