"""Times in the database: the first and the last task of a batch record when they run."""

import os

import psycopg


def mark() -> None:
    """Record the current time."""
    with psycopg.connect(f"postgresql://{os.environ['DATABASE']}") as connection:
        connection.execute("INSERT INTO marks DEFAULT VALUES")
