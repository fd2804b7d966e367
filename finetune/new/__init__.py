"""Scaffolding: creates a plugin package, or a recipe for a folder of photos."""
