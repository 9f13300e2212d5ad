"""Configuration errors, reported at start."""


class ConfigurationError(Exception):
    """A mistake in a feature or a setting; the message is one line with place, problem and fix."""
