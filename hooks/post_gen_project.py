"""Write .env, with fresh secrets into the empty values of .env.example, and say what comes next."""

import secrets
from pathlib import Path

ENV = Path(".env")


def with_secrets(example: str) -> str:
    """The lines of .env.example, each empty value filled with 32 random characters that are safe everywhere."""
    lines = (line + secrets.token_hex(16) if line.endswith("=") else line for line in example.splitlines())
    return "\n".join(lines) + "\n"


if not ENV.exists():  # rendering anew over a project must not lock it out of its own data
    ENV.touch(mode=0o600)
    ENV.write_text(with_secrets(Path(".env.example").read_text(encoding="utf-8")), encoding="utf-8", newline="\n")

print(
    """
{{ cookiecutter.project_slug }} is rendered. Next:

    cd {{ cookiecutter.project_slug }}
    docker compose up --build --wait

Then open http://localhost:8060 (API) and http://localhost:5555 (Flower); README.md has the rest.
"""
)
