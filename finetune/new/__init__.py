"""Beginnings: a package for a plugin, a recipe for a folder of photos."""
