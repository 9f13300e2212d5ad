"""Refuse, each in one line, what is known only now: answers of a replay, and text that was run as Jinja."""

import json
import sys

# What was given before cookiecutter rendered it is absent in a replay
REFUSED = json.loads(r"""{{ ((cookiecutter | refused) + (_cookiecutter | default({}) | run_as_jinja)) | tojson }}""")

if REFUSED:
    print("\n".join(REFUSED), file=sys.stderr)
    sys.exit(1)
