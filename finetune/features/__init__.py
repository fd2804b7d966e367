"""Feature cache: stores the outputs of frozen stages on disk."""
