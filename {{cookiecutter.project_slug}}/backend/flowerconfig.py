"""Flower's configuration; what docker-compose.yml adds comes as FLOWER_... variables."""

from app import logs
from app.settings import settings

broker_api = settings().broker_api_url
max_tasks = 20_000
inspect_timeout = 2_000.0  # milliseconds

logs.configure()
