"""Sweep: one run for each combination of the values listed on the command line, and a table of the results."""
