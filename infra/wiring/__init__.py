"""The composition root: real objects out of a recipe, settings and options; one module per process."""
