"""Photos: reading, scanning, splitting, batching, and what the network should say about them."""
