"""The devices that networks run on: one small module for each, and ``device``, which chooses one and sets it up."""
