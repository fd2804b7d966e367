"""Built-in datasets, augmentations, freezing policies and callbacks, each a plugin in a module of its own."""
