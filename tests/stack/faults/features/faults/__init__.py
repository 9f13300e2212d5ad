"""Tasks of the fault suite, copied into the rendered project as a feature."""
