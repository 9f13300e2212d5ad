"""A task with arguments of any size, copied into the rendered project as a feature."""
