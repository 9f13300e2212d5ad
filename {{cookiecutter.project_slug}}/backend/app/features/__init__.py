"""The team's code, one package per feature; template updates leave it alone.

A feature may have the modules `tables` (SQLAlchemy models), `tasks`, `schedule` and `endpoints` (a `router`), which are
found without registration. Features import from `app.core`, never from each other.
"""
