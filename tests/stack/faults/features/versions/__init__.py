"""Tasks that change their signatures in a deploy, copied into the rendered project as a feature."""
