"""Write .env, with fresh secrets where .env.example leaves them out, and say what comes next."""

import re
import secrets
from pathlib import Path

ENV = Path(".env")
SECRET = re.compile(r"^\w+_(?:PASS|PASSWORD|COOKIE_SECRET)=$", re.M)


def with_secrets(example: str) -> str:
    """The text of .env.example, each secret that is empty there made of 32 random characters, safe everywhere."""
    return SECRET.sub(lambda line: line[0] + secrets.token_hex(16), example)


if not ENV.exists():  # rendering anew over a project must not lock it out of its own data
    ENV.touch(mode=0o600)
    ENV.write_text(with_secrets(Path(".env.example").read_text(encoding="utf-8")), encoding="utf-8", newline="\n")

print(
    """
{{ cookiecutter.project_slug }} is rendered. Next:

    cd {{ cookiecutter.project_slug }}
{% if cookiecutter.__oauth %}
    (register Flower at {{ cookiecutter.__oauth }}, and fill in the empty FLOWER_... values of .env: FLOWER.md says how)
{% endif %}
    docker compose up --build --wait

Then open http://localhost:8060 (API) and http://localhost:5555 (Flower); README.md has the rest.
"""
)
