"""Chaos: a steady load, a random but reproducible schedule of faults, and a checker of every invariant."""
