"""Files: atomic writes, verified downloads, safe unpacking, and the cache folder."""
