"""A model as a commented table of a campaign file: every key, with its help from the field's own description.

Prose is `# like this`; a key that is not in force is `#key = value`, so that it is in force once the # is taken away.
"""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from fedage.common.campaign_file._rules import NOT_BUILT
from fedage.common.estimators import names
from fedage.common.toml.words import allowed, one_of, resolve

Schema = Mapping[str, Any]
Values = Mapping[str, Any]

EXAMPLES: Mapping[str, Any] = {
    "campaign.sites": ["north", "south"],
    "cohort.modality": ["CR", "DX"],
    "cohort.healthy": {"column": "healthy", "equals": 1.0},
    "table.id": "subject",
    "table.age": "age",
    "table.predicted": "predicted_age",
    "table.sex": "sex",
    "table.female": 2.0,
    "table.missing": [-9999.0],
    "training.rounds": 20,
    "training.local_norms": "statistics",
    "training.proximal": 0.01,
    "training.server_learning_rate": 1.0,
    "training.server_momentum": 0.9,
    "training.server_beta_1": 0.9,
    "training.server_beta_2": 0.99,
    "training.server_tau": 0.001,
    "training.wait_after_quorum_s": 60.0,
    "training.quorum_wait_s": 600.0,
    "training.patience_rounds": 10,
    "training.max_step_norm": 1.0,
    "training.max_path_norm": 5.0,
    "validation.folds": 5,
    "validation.sites": ["east"],
    "estimator.bundle": "0" * 64,
    "training.start_bundle": "0" * 64,
    "training.micro_batch": 4,
    "validation.fractions.train": 0.7,
    "validation.fractions.validation": 0.15,
    "validation.fractions.test": 0.15,
    "privacy.epsilon": 3.0,
    "privacy.delta": 1e-5,
    "privacy.noise_multiplier": 1.0,
    "privacy.clip_norm": 1.0,
    "privacy.largest_error_years": 20.0,
    "privacy.site_keys": {"north": "0" * 64},
    "survival.strata": ["is_male"],
    "survival.table_times_years": [1.0, 2.0, 5.0],
    "survival.curves_by": "is_male",
    "survival.models.name": "gap",
    "survival.models.covariates": ["gap_years", "age_years"],
    "groups.column": "diagnosis",
    "groups.equals": 1.0,
    "groups.reference": 0.0,
    "estimator.options.features": ["*"],
    "estimator.options.exclude": ["*_id"],
    "estimator.options.ranges": {"*_thickness": [1.0, 5.0]},
    "estimator.options.age_range_years": [20.0, 90.0],
    "estimator.options.score_range": [0.0, 30.0],
}
"""What a key looks like that has no default, or one that does not show it."""
_EMPTY: tuple[Any, ...] = (None, [], {})
_WIDTH = 100


def table_lines(
    path: str,
    model: type[BaseModel],
    values: Values | None,
    *,
    about: str = "",
    without: tuple[str, ...] = (),
    only_set: bool = False,
    examples: Mapping[str, Any] = EXAMPLES,
) -> list[str]:
    """The lines of one table, what is inside it included.

    Parameters
    ----------
    path
        Its dotted name, e.g. `estimator.options`.
    model
        What checks it.
    values
        What is set; everything else is in force with its default if there is one. None: no line is in force.
    about
        Heading, instead of the model's docstring.
    without
        Keys to leave out.
    only_set
        Only what is set is in force: for options of which some exclude others.
    examples
        What keys without a telling default look like, by their dotted names.
    """
    root = model.model_json_schema()
    lines = [*comment(about or _heading(path, model)), _off(f"[{path}]", values is None)]
    inner: list[str] = []
    for key, schema in root["properties"].items():
        property_schema, full = resolve(schema, root), f"{path}.{key}"
        is_free = property_schema.get("type") == "object" and "properties" not in property_schema
        if key in without or (is_free and full not in EXAMPLES):
            continue  # a free-form table is somebody else's: the estimator's options
        if (part := _model_in(property_schema, root)) is None:
            line = _line(full, schema, root, values, only_set=only_set, examples=examples)
            lines += [*comment(_help(full, property_schema, root)), line]
            continue
        given = None if values is None else values.get(key)
        many = property_schema.get("type") == "array"
        inner += ["", *comment(_help(full, property_schema, root))]
        for item in given if many and given else [given]:
            inner.append(_off(f"[[{full}]]" if many else f"[{full}]", item is None))
            for name, one in part["properties"].items():
                inner += [*comment(_help(f"{full}.{name}", one, part)), _line(f"{full}.{name}", one, part, item)]
    return [*lines, *inner]


def comment(text: str) -> list[str]:
    """Text as lines of prose."""
    return textwrap.wrap(text, _WIDTH, initial_indent="# ", subsequent_indent="# ", break_on_hyphens=False)


def toml(value: Any) -> str:
    """A value as TOML writes it."""
    if isinstance(value, str):
        # TOML's basic strings are JSON's, which leaves DEL as it is.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{_key(key)} = {toml(item)}" for key, item in value.items()) + " }"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(toml(item) for item in value) + "]"
    return repr(value)


def _key(name: str) -> str:
    """A key as TOML writes it: with quotation marks where it has to have them."""
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else toml(name)


def _line(
    path: str,
    schema: Schema,
    root: Schema,
    values: Values | None,
    *,
    only_set: bool = False,
    examples: Mapping[str, Any] = EXAMPLES,
) -> str:
    """`key = value`, out of force where it should be."""
    key, default = path.rpartition(".")[2], schema.get("default")
    if values is not None and key in values:
        return f"{key} = {toml(values[key])}"
    shown = examples.get(path, _some(schema)) if default in _EMPTY else default
    required = key in root.get("required", ())
    in_force = values is not None and (required or (not only_set and default not in _EMPTY))
    return _off(f"{key} = {toml(shown)}", not in_force)


def _some(schema: Schema) -> Any:
    """Some value of a key that has no example: the first word, the least number, or a text."""
    if "enum" in schema:
        return schema["enum"][0]
    if schema.get("type") == "array":
        return [_some(schema.get("items", {}))]
    return schema.get("minimum", 1) if schema.get("type") in ("integer", "number") else "…"


def _off(line: str, off: bool) -> str:
    return f"#{line}" if off else line


def _model_in(schema: Schema, root: Schema) -> Schema | None:
    """The table that a key is, or a list of such tables; None for a plain key."""
    model = resolve(schema["items"], root) if schema.get("type") == "array" and "items" in schema else schema
    return {**model, "$defs": root.get("$defs", {})} if "properties" in model else None


def _heading(path: str, model: type[BaseModel]) -> str:
    """The first sentence of the model's docstring, if it says more than the table's name."""
    first = (model.__doc__ or "").strip().splitlines()[0].replace("`", "").rstrip(".")
    return "" if first == f"[{path}]" else f"{first}."


def _help(key: str, schema: Schema, root: Schema) -> str:
    """What a key means, what it may be, and what of that is not built yet."""
    meaning = schema.get("description", key.rpartition(".")[2].replace("_", " "))
    if meaning[:1].isascii():
        meaning = meaning[:1].upper() + meaning[1:]
    rule = next((rule for rule in NOT_BUILT if rule.key == key), None)
    refused = rule.values or () if rule is not None else ()
    built = (
        {**schema, "enum": [value for value in schema["enum"] if value not in refused]} if "enum" in schema else schema
    )
    may = "" if _model_in(schema, root) else f" ({re.sub(r' [(][^()]*[)]', '', allowed(built, root))})"
    if key == "estimator.name":
        may = f" ({one_of(names())})"
    instead = (
        f" Or: {key.rpartition('.')[2]} = {toml(EXAMPLES[key])}."
        if key in EXAMPLES and schema.get("default") not in _EMPTY
        else ""
    )
    later = (
        f" Planned, not built yet{': ' + one_of(refused).removeprefix('one of ') if refused else ''}." if rule else ""
    )
    return f"{meaning}{may}.{instead}{later}"
