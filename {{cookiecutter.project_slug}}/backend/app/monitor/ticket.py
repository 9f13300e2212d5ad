"""A login for scripts, where people log in with an account elsewhere: `python -m app.monitor.ticket`."""

import os
import sys

from tornado.web import create_signed_value


def main() -> None:
    """Print the value of the cookie `user` that admits the first of those who may log in, for 30 days."""
    person = os.environ["FLOWER_AUTH"].split("|")[0].replace(".*", "script")
    sys.stdout.write(create_signed_value(os.environ["FLOWER_COOKIE_SECRET"], "user", person).decode())


if __name__ == "__main__":
    main()
