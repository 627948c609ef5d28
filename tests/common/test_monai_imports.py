"""MONAI is imported as a whole before a part of it.

`import monai` imports all its parts, and a part imports MONAI first: two threads that begin with two parts wait for
each other, and Python ends one of the imports with an error. A site makes samples in several threads.
"""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def modules(text: str) -> list[str]:
    """What a file imports, in order."""
    found: list[tuple[int, str]] = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and node.module:
            found.append((node.lineno, node.module))
        elif isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
    return [name for _, name in sorted(found)]


def begins_with_a_part(text: str) -> bool:
    first = next((name for name in modules(text) if name.partition(".")[0] == "monai"), "monai")
    return first != "monai"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("import monai\nfrom monai.transforms import Resize", False),
        ("from monai.transforms import Resize", True),
        ("import monai.data", True),
        ("def f():\n    from monai.networks import nets\nimport monai", True),
        ("import torch", False),
    ],
)
def test_the_check_sees_it(text: str, found: bool) -> None:
    assert begins_with_a_part(text) is found


def test_no_file_of_the_product_begins_with_a_part_of_monai() -> None:
    files = [file for room in ("client", "common", "deploy", "server") for file in (ROOT / room).rglob("*.py")]
    using = {file: text for file in files if "monai" in (text := file.read_text(encoding="utf-8"))}
    assert sum("monai" in modules(text) for text in using.values()) >= 3
    assert [str(file.relative_to(ROOT)) for file, text in using.items() if begins_with_a_part(text)] == []
