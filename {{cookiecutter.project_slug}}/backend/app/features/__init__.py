"""The team's code, one package per feature; template updates leave it alone.

A feature has up to four modules, all optional and found without registration: `tables` (SQLAlchemy models), `schemas`
(pydantic models), `tasks` and `endpoints` (a `router`). Features import from `app.core`, never from each other.
"""
