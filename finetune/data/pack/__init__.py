"""Packs: photos in a few large files."""
