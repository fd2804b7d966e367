"""Recipes: what one may say, reading it with positions, checking it against the catalogue."""
