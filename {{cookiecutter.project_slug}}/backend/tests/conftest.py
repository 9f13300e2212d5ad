"""Settings for the unit tests, which need no server; in a container the real ones are there already."""

import os

NOWHERE = {
    "POSTGRES_HOST": "127.0.0.1",
    "POSTGRES_PORT": "1",  # nothing listens there
    "POSTGRES_USER": "app",
    "POSTGRES_PASSWORD": "secret",
    "POSTGRES_DB": "app",
    "RABBITMQ_DEFAULT_USER": "app",
    "RABBITMQ_DEFAULT_PASS": "secret",
    "CELERY_RESULT_BACKEND": "cache+memory://",
}

if "CELERY_RESULT_BACKEND" not in os.environ:
    os.environ.update(NOWHERE)
