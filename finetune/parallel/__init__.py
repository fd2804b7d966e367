"""Training by several processes: how they are started, and what they tell one another."""
