"""Built-in datasets, augmentations, freezing policies, callbacks and checks, each a plugin in a module of its own."""
