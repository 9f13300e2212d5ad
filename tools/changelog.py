"""Print the section of a version in CHANGELOG.md: `python -m tools.changelog v1.2.3`. Releases use it as notes."""

import re
import sys
import tomllib

from tools.pieces import ROOT


def section(changelog: str, version: str) -> str:
    """Return the text below the heading of a version.

    Raises:
        ValueError: the version has no section, or its section is empty.
    """
    heading = rf"^## {re.escape(version)} - \d{{4}}-\d\d-\d\d\n(.*?)(?=^## |\Z)"
    found = re.search(heading, changelog, re.M | re.S)
    if not found or not found[1].strip():
        message = f"CHANGELOG.md: no section for {version} (add it, with a date)"
        raise ValueError(message)
    return found[1].strip() + "\n"


def release_notes(tag: str) -> str:
    """Return the section of the version that a tag names.

    Raises:
        ValueError: the tag is not the version in pyproject.toml, or the section is missing.
    """
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    if tag != f"v{version}":
        message = f"{tag}: not the version in pyproject.toml (use v{version})"
        raise ValueError(message)
    return section((ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), version)


if __name__ == "__main__":
    try:
        sys.stdout.write(release_notes(sys.argv[1]))
    except ValueError as error:
        sys.exit(str(error))
