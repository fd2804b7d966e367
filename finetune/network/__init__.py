"""Network: stages, heads and the engines that compute their outputs."""
