"""Four tasks to try the service with; delete this package and `tests/features/demo` when they are no longer needed."""
