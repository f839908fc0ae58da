"""A stranger's plugin: the scorer `mean-margin` and the model source `narrow-mobilenets`."""
