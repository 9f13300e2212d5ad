"""The API: what it accepts, what it tells of it, and how it says no."""
