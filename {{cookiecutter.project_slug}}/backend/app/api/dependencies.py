"""What calls of the API share."""

from fastapi import Request

from app.relay import Relay


def current_relay(request: Request) -> Relay:
    """The relay of this process."""
    relay: Relay = request.app.state.relay
    return relay
