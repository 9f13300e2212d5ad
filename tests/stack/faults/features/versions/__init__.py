"""Tasks whose signatures a deploy changes, copied into the rendered project as a feature."""
