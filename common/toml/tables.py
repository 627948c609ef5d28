"""One table against its model: every mistake in it, and what is left when the mistakes are taken out."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from fedage.common.toml import words as _words
from fedage.common.toml.problems import Problem

Location = tuple[str | int, ...]


@dataclass(frozen=True)
class Checked:
    """A table after its check.

    Parameters
    ----------
    value
        The model; None if a mistake was found.
    sound
        The raw table without its mistakes; a bad item of a list is None, so that positions stay.
    bad
        Dotted keys, the table's own name first, whose value is not known.
    """

    value: BaseModel | None
    sound: Mapping[str, Any]
    problems: tuple[Problem, ...] = ()
    bad: frozenset[str] = field(default_factory=frozenset)


def check_table(name: str, raw: Any, model: type[BaseModel], *, homes: Mapping[str, str] | None = None) -> Checked:
    """Check one table.

    Parameters
    ----------
    name
        Its dotted name in the file, e.g. `training`.
    raw
        What the file has there.
    model
        What it should be.
    homes
        For "belongs in": the table that knows each key.
    """
    if not isinstance(raw, Mapping):
        known = ", ".join(model.model_json_schema()["properties"])
        problem = Problem(
            name, f"{name} = {_words.show(raw)}: must be a table, not {_words.kind(raw)}; write [{name}] with {known}"
        )
        return Checked(None, {}, (problem,), frozenset({name}))
    try:
        return Checked(model.model_validate(raw), raw)
    except ValidationError as error:
        errors = error.errors(include_url=False)
    root = model.model_json_schema()  # of a table without mistakes nobody asks for it, and it takes time
    sound = copy.deepcopy(_as_lists(raw))
    problems: dict[Problem, None] = {}
    bad = set()
    for detail in errors:
        where = _in_file(detail["loc"], raw, root)
        schema = _schema_at(where[:-1] if detail["type"] == "extra_forbidden" else where, root)
        if _shadowed(detail, where, raw) or _follows(detail, raw):
            continue
        key = dotted(name, where)
        if detail["type"] == "extra_forbidden":
            message = _unknown_key(name, where, detail["input"], _table_in(schema, root), homes or {})
        else:
            message = _words.describe_error(key, detail, schema, root)
        problems[Problem(key, message)] = None
        bad.add(key)
        _remove(sound, where)
    return Checked(None, sound, tuple(problems), frozenset(bad))


def dotted(name: str, where: Iterable[str | int]) -> str:
    """`survival` and `("models", 0, "name")` as `survival.models[1].name`: people count from one."""
    key = name
    for part in where:
        key += f"[{part + 1}]" if isinstance(part, int) else f".{part}"
    return key


def _in_file(location: Location, raw: Any, root: Mapping[str, Any]) -> Location:
    """The location without what pydantic adds for the branches of a union (`literal['all']`, a model's name, `int`)."""
    where: list[str | int] = []
    here = raw
    for position, part in enumerate(location):
        if _holds(here, part):
            here = here[part]
        elif (
            position < len(location) - 1
            or not isinstance(here, Mapping)
            or str(part).startswith("literal[")
            or part in root.get("$defs", {})
        ):
            continue
        where.append(part)
    return tuple(where)


def _holds(holder: Any, part: str | int) -> bool:
    if isinstance(holder, Mapping):
        return part in holder
    return isinstance(holder, (tuple, list)) and isinstance(part, int) and part < len(holder)


def _shadowed(detail: ErrorDetails, where: Location, raw: Any) -> bool:
    """Whether a union's other branch tells the same mistake better: a table is meant as a table, the rest as a word."""
    branch = len(detail["loc"]) > len(where)
    if not branch:
        return False
    value = _value_at(raw, where)
    is_table = isinstance(detail["input"], Mapping) and value is detail["input"]
    return (detail["type"] == "literal_error" and is_table) or (detail["type"] == "model_type" and not is_table)


def _follows(detail: ErrorDetails, raw: Any) -> bool:
    """Whether a list only lacks items because some are wrong, which is said of each of these."""
    there = _value_at(raw, detail["loc"])
    return (
        detail["type"] == "too_short" and isinstance(there, (tuple, list)) and len(there) >= detail["ctx"]["min_length"]
    )


def _value_at(raw: Any, where: Location) -> Any:
    for part in where:
        if not _holds(raw, part):
            return None
        raw = raw[part]
    return raw


def _schema_at(where: Location, root: Mapping[str, Any]) -> Mapping[str, Any]:
    schema: Mapping[str, Any] = root
    for part in where:
        schema = _table_in(_words.resolve(schema, root), root)
        if isinstance(part, int):
            items = schema.get("items", {})
            prefix = schema.get("prefixItems", ())
            schema = prefix[part] if part < len(prefix) else items
        elif part in schema.get("properties", {}):
            schema = schema["properties"][part]
        else:
            inner = schema.get("additionalProperties", {})
            schema = inner if isinstance(inner, Mapping) else {}
    return _words.resolve(schema, root)


def _table_in(schema: Mapping[str, Any], root: Mapping[str, Any]) -> Mapping[str, Any]:
    """The branch of a union that is a table."""
    branches = [_words.resolve(branch, root) for branch in schema.get("anyOf", ())]
    return next((branch for branch in branches if branch.get("type") == "object"), schema)


def _unknown_key(name: str, where: Location, value: Any, schema: Mapping[str, Any], homes: Mapping[str, str]) -> str:
    table, key, last = dotted(name, where[:-1]), dotted(name, where), str(where[-1])
    known = tuple(schema.get("properties", ()))
    close = _words.did_you_mean(last, known)
    if close is not None:
        mend = f"did you mean {table}.{close}?"
    elif last in homes:
        mend = f"it belongs in [{homes[last]}]"
    else:
        mend = f"[{table}] knows {', '.join(known)}" if known else f"[{table}] takes no keys"
    return f"{key} = {_words.show(value)}: unknown key; {mend}"


def _as_lists(value: Any) -> Any:
    """Tuples as lists, so that one item can be taken out."""
    if isinstance(value, tuple):
        return [_as_lists(item) for item in value]
    if isinstance(value, Mapping):
        return {key: _as_lists(item) for key, item in value.items()}
    return value


def _remove(sound: Any, where: Location) -> None:
    if not where:
        return
    holder = _value_at(sound, where[:-1])
    if _holds(holder, where[-1]):
        if isinstance(holder, dict):
            del holder[where[-1]]
        else:
            holder[where[-1]] = None
