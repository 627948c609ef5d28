"""The folders at the top are the agreed ones; style, types and folder rules are steps of `.ci/run`."""

import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_top_level_is_the_agreed_one() -> None:
    allowed = {"pyproject.toml", "server", "client", "common", "deploy", "tests", "README.md"}
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split(
        "\n"
    )
    top = {name.split("/")[0] for name in listed if name and not name.startswith(".")}
    assert top <= allowed
