"""Files: written whole, fetched verified, unpacked safely, kept in one cache."""
