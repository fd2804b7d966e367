"""Heat maps: which part of an image a prediction comes from."""
