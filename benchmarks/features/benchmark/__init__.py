"""Endpoints and a task that only the benchmarks use."""
