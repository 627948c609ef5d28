"""Mistakes in words. What is allowed is read from the models' JSON schema, so that text and check cannot differ."""

from __future__ import annotations

import datetime
import difflib
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic_core import ErrorDetails

from fedage.common.toml.column_names import MOST_CHARACTERS, PATTERN

Schema = Mapping[str, Any]

_PATTERNS = {
    "^[a-z0-9][a-z0-9-]{0,62}$": "1 to 63 lower-case letters, digits and hyphens",
    PATTERN: f"a column name (1 to {MOST_CHARACTERS} letters, digits, signs and blanks inside, no control characters)",
    r"^[A-Za-z0-9.:_-]{1,253}$": "a name such as age.example.org, or an address",
    "^[A-Z0-9]{2,16}$": "2 to 16 capital letters and digits",
}
_NUMBER = re.compile(r"\d+(?:\.\d+)?")
_RANGE = re.compile(r"(\d+(?:\.\d+)?)\s*(?:-|–|—|to|bis|\.\.+)\s*(\d+(?:\.\d+)?)\s*(?:y|years)?")
_WRONG_TYPE = (
    "int_type",
    "float_type",
    "bool_type",
    "string_type",
    "tuple_type",
    "dict_type",
    "model_type",
    "list_type",
)


def show(value: Any) -> str:
    """A value as the file writes it, shortened."""
    if isinstance(value, (tuple, list)):
        text = "[" + ", ".join(show(item) for item in value) + "]"
    elif isinstance(value, Mapping):
        text = "{" + ", ".join(f"{key} = {show(item)}" for key, item in value.items()) + "}"
    elif isinstance(value, str):
        text = json.dumps(value, ensure_ascii=False)
    elif isinstance(value, bool):
        text = "true" if value else "false"
    elif isinstance(value, int) and abs(value) > 10**30:
        text = "a whole number of more than 30 digits"
    else:
        text = str(value)
    return text if len(text) <= 60 else text[:57] + "…"


def kind(value: Any) -> str:
    """What a TOML value is."""
    kinds: tuple[tuple[type | tuple[type, ...], str], ...] = (
        (bool, "true or false"),
        (int, "a whole number"),
        (float, "a number with a decimal point"),
        (str, "text"),
        ((tuple, list), "a list"),
        (Mapping, "a table"),
        ((datetime.date, datetime.time), "a date or time"),
    )
    return next((words for types, words in kinds if isinstance(value, types)), "something else")


def resolve(schema: Schema, root: Schema) -> Schema:
    """Follow `$ref`, and take the one alternative of an optional value."""
    if "$ref" in schema:
        target = root["$defs"][schema["$ref"].rpartition("/")[2]]
        return {**target, **{key: value for key, value in schema.items() if key != "$ref"}}
    alternatives = [item for item in schema.get("anyOf", ()) if item.get("type") != "null"]
    if len(alternatives) == 1:
        return {**resolve(alternatives[0], root), **{key: value for key, value in schema.items() if key != "anyOf"}}
    return schema


def allowed(schema: Schema, root: Schema) -> str:
    """What a key may be, in words, e.g. `a whole number from 1 to 10000`."""
    schema = resolve(schema, root)
    if "anyOf" in schema:
        return " or ".join(allowed(item, root) for item in schema["anyOf"] if item.get("type") != "null")
    if "const" in schema:
        return show(schema["const"])
    if "enum" in schema:
        return one_of(schema["enum"])
    match schema.get("type"):
        case "integer":
            low, high = schema.get("minimum"), schema.get("maximum")
            if high is None and "exclusiveMaximum" in schema:
                high = schema["exclusiveMaximum"] - 1
            if low is not None and high is not None:
                return f"a whole number from {low:.0f} to {high:.0f}{_multiple(schema)}"
            return "a whole number" + (f" ≥ {low:.0f}" if low is not None else "") + _multiple(schema)
        case "number":
            signs = (("minimum", "≥"), ("exclusiveMinimum", ">"), ("maximum", "≤"), ("exclusiveMaximum", "<"))
            bounds = [f"{sign} {schema[key]:g}" for key, sign in signs if key in schema]
            return " ".join(["a number", " and ".join(bounds)]).strip()
        case "boolean":
            return "true or false"
        case "string":
            if "pattern" in schema:
                return _PATTERNS.get(schema["pattern"], f"text that matches {schema['pattern']}")
            if "minLength" in schema:
                return f"text of {schema['minLength']} to {schema['maxLength']} characters"
            return "text"
        case "array":
            if "items" not in schema:
                return "a list"
            count = f" of at least {schema['minItems']}" if "minItems" in schema else ""
            return f"a list{count}, each item {allowed(schema['items'], root)}"
        case "object":
            if "properties" in schema:
                return f"a table with {', '.join(schema['properties'])}"
            inner = schema.get("additionalProperties")
            return f"a table, each value {allowed(inner, root)}" if isinstance(inner, Mapping) else "a table"
        case _:
            return "another value"


def _multiple(schema: Schema) -> str:
    return f", a multiple of {schema['multipleOf']:g}" if "multipleOf" in schema else ""


def one_of(values: Iterable[Any]) -> str:
    """`"a"` or `one of "a", "b"`."""
    shown = [show(value) for value in values]
    return shown[0] if len(shown) == 1 else f"one of {', '.join(shown)}"


def did_you_mean(word: str, known: Iterable[str]) -> str | None:
    """The known word that looks most like this one, if any does."""
    close = difflib.get_close_matches(word.lower(), list(known), n=1, cutoff=0.6)
    return close[0] if close else None


def describe_error(key: str, error: ErrorDetails, schema: Schema, root: Schema) -> str:
    """One line for one error that pydantic found at `key`, whose schema is `schema`."""
    value = error["input"]
    schema = resolve(schema, root)
    what_for = f" ({schema['description']})" if "description" in schema else ""
    mend = f"set {key} to {allowed(schema, root)}"
    if error["type"] == "missing":
        return f"{key} is missing: it must be given{what_for}; {mend}"
    if error["type"] == "literal_error" or ("anyOf" in schema and error["type"] in _WRONG_TYPE):
        close = did_you_mean(value, schema.get("enum", ())) if isinstance(value, str) else None
        hint = f"did you mean {show(close)}?" if close else "write it as one of these"
        return f"{key} = {show(value)}: must be {allowed(schema, root)}{what_for}; {hint}"
    if error["type"] == "float_type" and (both := _range_of(value)) and ("_min_" in key or "_max_" in key):
        least, most = key.replace("_max_", "_min_"), key.replace("_min_", "_max_")
        mend = f"it holds two: set {least} = {both[0]} and {most} = {both[1]}"
    elif error["type"] == "float_type" and isinstance(value, str) and _NUMBER.fullmatch(value.strip()):
        mend = f"write it without quotation marks: {key} = {value.strip()}"
    rule = _broken_rule(error, schema, root)
    if rule == f"must be {allowed(schema, root)}" or (error["type"] == "value_error" and mend.endswith(" to text")):
        mend = "change it"
    return f"{key} = {show(value)}: {rule}{what_for}; {mend}"


def _range_of(value: Any) -> tuple[str, str] | None:
    """Both ends of a range in one text or list, such as "18-38"; None if it is none."""
    text = "-".join(map(str, value)) if isinstance(value, (tuple, list)) else value
    limits = _RANGE.fullmatch(text.strip()) if isinstance(text, str) else None
    return (limits[1], limits[2]) if limits else None


def _broken_rule(error: ErrorDetails, schema: Schema, root: Schema) -> str:
    limits = error.get("ctx", {})
    match error["type"]:
        case "greater_than_equal":
            return f"must be ≥ {limits['ge']:g}"
        case "greater_than":
            return f"must be > {limits['gt']:g}"
        case "less_than_equal":
            return f"must be ≤ {limits['le']:g}"
        case "less_than":
            return f"must be < {limits['lt']:.10g}"
        case "multiple_of":
            return f"must be a multiple of {limits['multiple_of']:g}"
        case "finite_number":
            return "must be a finite number"
        case "too_short":
            return f"must have at least {limits['min_length']} item{'s' if limits['min_length'] != 1 else ''}"
        case "too_long":
            return f"must have at most {limits['max_length']} items"
        case "string_too_short":
            return f"must have at least {limits['min_length']} characters"
        case "string_too_long":
            return f"must have at most {limits['max_length']} characters"
        case "value_error":
            return str(limits.get("error", error["msg"]))
        case wrong if wrong in _WRONG_TYPE:
            needed = allowed({"type": schema.get("type", "")}, root)
            return f"must be {needed}, not {kind(error['input'])}"
        case _:
            return f"must be {allowed(schema, root)}"
