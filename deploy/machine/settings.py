"""A home folder's settings file: TOML to a frozen model, or every mistake in it at once."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel

from fedage.common.errors import FedAgeError
from fedage.common.toml import text as _toml
from fedage.common.toml.problems import Problem, problems_text
from fedage.common.toml.tables import check_table
from fedage.common.toml.text import MAX_TOML_BYTES
from fedage.deploy.machine.bounded import FileTooLarge, read_text_at_most

Model = TypeVar("Model", bound=BaseModel)


class SettingsErrors(FedAgeError):
    """A settings file that is refused. `.problems` are all of its mistakes."""

    def __init__(self, file: Path, problems: Iterable[Problem]) -> None:
        self.file = file
        self.problems = tuple(problems)
        super().__init__(problems_text(f"{file}:", self.problems))


def check_settings(values: Mapping[str, Any], model: type[Model], *, file: Path) -> Model:
    """Values, from a file or on the way into one, as the model.

    Raises
    ------
    SettingsErrors
        With every mistake: the key, its value, what is allowed, the mend.
    """
    checked = check_table(file.name, values, model)
    if not isinstance(checked.value, model):
        plain = (Problem(p.key, p.message.replace(f"{file.name}.", "")) for p in checked.problems)
        raise SettingsErrors(file, plain)
    return checked.value


def read_settings(file: Path, model: type[Model], *, mend: str) -> Model:
    """Read and check a settings file.

    Parameters
    ----------
    file
        A TOML file of plain keys.
    model
        What it should be.
    mend
        What to do when there is no such file, e.g. `make it with fedage site init`.

    Raises
    ------
    SettingsErrors
        With every mistake, also when the file cannot be read at all.
    """
    try:
        text = read_text_at_most(file, most_bytes=MAX_TOML_BYTES)
    except FileTooLarge as error:
        text_of_error = f"{file.name} has {error.strerror}; take out all that is no setting"
        raise SettingsErrors(file, (Problem("", text_of_error),)) from None
    except UnicodeDecodeError:
        raise SettingsErrors(file, (Problem("", f"{file.name} is not UTF-8; save it as UTF-8"),)) from None
    except OSError as error:
        raise SettingsErrors(file, (Problem("", f"{file.name} cannot be read ({error.strerror}): {mend}"),)) from None
    return check_settings(toml_tables(text, file=file), model, file=file)


def toml_tables(text: str, *, file: Path) -> Mapping[str, Any]:
    """A TOML text's tables, lists as tuples: for files that are checked elsewhere.

    Raises
    ------
    SettingsErrors
        If it cannot be read.
    """
    source = _toml.read(text, name=file.name)
    if source.tables is None or source.problems:
        raise SettingsErrors(file, source.problems)
    return source.tables


def settings_text(model: BaseModel, *, heading: str) -> str:
    """A settings file with each key's help above it; what is None is left out, as a comment. Tables come last."""
    lines = [f"# {heading}"]
    fields = type(model).model_fields
    for key in sorted(fields, key=lambda key: _is_table(fields[key].annotation)):
        value, is_table = getattr(model, key), _is_table(fields[key].annotation)
        none, some = (f"# [{key}]", f"[{key}]") if is_table else (f"# {key} =", f"{key} = ")
        lines += ["", f"# {fields[key].description}", none if value is None else some + _written(value)]
    return "\n".join(lines) + "\n"


def _is_table(annotation: Any) -> bool:
    """Whether a field is a table of the file, one that may be left out included."""
    kinds = get_args(annotation) or (annotation,)
    return any(isinstance(kind, type) and issubclass(kind, BaseModel) for kind in kinds)


def _written(value: Any) -> str:
    if not isinstance(value, BaseModel):
        return _toml_value(value)
    values = value.model_dump(exclude_none=True)
    return "".join(f"\n{key} = {_inline(inner)}" for key, inner in values.items())


def _inline(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_toml_value(str(key))} = {_inline(inner)}" for key, inner in value.items()) + "}"
    return _toml_value(value)


def _toml_value(value: Any) -> str:
    # JSON's strings, numbers, booleans and lists are TOML too, but for DEL, which TOML wants escaped.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
