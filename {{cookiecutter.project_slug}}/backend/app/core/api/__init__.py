"""The API: submit, list and revoke runs, health checks, and the transaction of a feature's endpoints."""

from app.core.api.transaction import Transaction

__all__ = ["Transaction"]
