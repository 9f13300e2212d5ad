"""Flower's configuration; docker-compose.yml adds more as FLOWER_... variables."""

import os
from functools import partial

import flower.command
from celery import states

from app.core import logs
from app.core.celery import celery_app
from app.core.monitor import access
from app.core.monitor.application import Application
from app.core.settings import settings

broker_api = settings().broker_api_url
max_tasks = 20_000
purge_offline_workers = 3_600  # seconds
tasks_columns = "name,uuid,state,args,kwargs,result,received,started,runtime,retries,worker"
inspect_timeout = 2_000.0  # milliseconds

access.check(os.environ)
if users := access.users(os.environ):
    basic_auth = users

# Progress is reported while a task is STARTED and has the same precedence; without one it would hide REVOKED.
states.PRECEDENCE_LOOKUP["PROGRESS"] = states.PRECEDENCE_LOOKUP[states.STARTED]

# By default, Celery waits 1 s for a worker's reply. Flower would then show an error for a change that is made.
vars(celery_app.control)["broadcast"] = partial(celery_app.control.broadcast, timeout=5)

logs.configure()
flower.command.Flower = Application
