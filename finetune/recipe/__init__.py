"""Recipes: the data model, reading with line numbers, and validation against the installed components."""
