"""The frozen part of a network: computed once an image, by the fastest engine there is, and kept."""
