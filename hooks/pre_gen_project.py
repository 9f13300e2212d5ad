"""Reject answers of a replay that are invalid, and text that cookiecutter evaluated as Jinja."""

import json
import sys

# _cookiecutter holds the answers before cookiecutter rendered them; a replay has none
VIOLATIONS = [
    *json.loads(r"""{{ cookiecutter | violations | tojson }}"""),
    *json.loads(r"""{{ _cookiecutter | default({}) | evaluated_text | tojson }}"""),
]

if VIOLATIONS:
    print("\n".join(VIOLATIONS), file=sys.stderr)
    sys.exit(1)
