"""What a Python user may import is `import fedage`: all of it is there, documented, and light until it is used."""

import ast
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import fedage

API = Path(__file__).parents[1] / "deploy" / "api" / "__init__.py"


@pytest.mark.parametrize("name", fedage.__all__)
def test_every_public_name_is_there_and_named_in_the_documentation(name: str) -> None:
    found = getattr(fedage, name)
    assert name in dir(fedage)
    if not name.startswith("__"):
        assert f"`{name}`" in (fedage.__doc__ or ""), f"{name} is public, and the package's docstring does not name it"
        assert inspect.getdoc(found) or not callable(found), f"{name} has no docstring"


def test_what_type_checkers_see_is_what_is_there() -> None:
    tree = ast.parse(API.read_text(encoding="utf-8"))
    block = next(node for node in tree.body if isinstance(node, ast.If))
    seen = {alias.name for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert seen == set(fedage.__all__)


def test_a_name_that_is_not_public_is_no_attribute() -> None:
    with pytest.raises(AttributeError, match="'fedage' has no attribute 'Nothing'"):
        _ = fedage.Nothing  # type: ignore[attr-defined]  # that there is no such name is what is tested


def test_importing_it_loads_nothing() -> None:
    code = "import sys; before = set(sys.modules); import fedage; print([m for m in set(sys.modules) - before])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(ast.literal_eval(done.stdout))
    assert {name.partition(".")[0] for name in loaded} <= {"fedage"} | set(sys.stdlib_module_names)
    assert not any(name.startswith("fedage.") for name in loaded)
