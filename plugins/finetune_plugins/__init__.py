"""Built-in datasets, augmentations, freezing policies and callbacks: one module each, plugins like everyone else's."""
