"""Remove folders that rendered empty, write .env with fresh secrets, and print the next steps."""

import contextlib
import json
import re
import secrets
import shutil
from pathlib import Path

ENV = Path(".env")
SECRET = re.compile(r"^\w+_(?:PASS|PASSWORD|COOKIE_SECRET|API_KEY)=$", re.M)
FOLDERS = json.loads(r"""{{ cookiecutter.project_slug | folders | tojson }}""")


def with_secrets(example: str) -> str:
    """Return the text of .env.example with each empty secret set to 32 random hexadecimal digits."""
    return SECRET.sub(lambda line: line[0] + secrets.token_hex(16), example)


for folder in FOLDERS:  # cookiecutter creates every folder, because the conditions are in file names
    with contextlib.suppress(OSError):  # it has files
        Path(folder).rmdir()

if not ENV.exists():  # rendering over an existing project keeps its passwords
    ENV.touch(mode=0o600)
    ENV.write_text(with_secrets(Path(".env.example").read_text(encoding="utf-8")), encoding="utf-8", newline="\n")

print(
    """
{{ cookiecutter.project_slug }} is rendered. Next:

    cd {{ cookiecutter.project_slug }}
{% if cookiecutter.__oauth %}
    (register Flower with {{ cookiecutter.__oauth }} and fill in the empty FLOWER_... values in .env; see FLOWER.md)
{% endif %}
    docker compose up --build --wait

Then open http://localhost:8060 (API) and http://localhost:5555 (Flower).
{% if cookiecutter.flower_auth == "basic" %}
The login to Flower is FLOWER_USER with FLOWER_PASSWORD; both are in .env.
{% endif %}
README.md has the details.
"""
)

if not shutil.which("docker"):
    print(
        "docker: not found (install it with Compose 2.30 or newer: https://docs.docker.com/get-started/get-docker/)\n"
    )
