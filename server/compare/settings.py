"""Campaign files as flat tables of settings, so that what differs between runs can be listed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError

from fedage.common.campaign import Campaign
from fedage.common.campaign_file.parse import TABLES

SEED = "campaign.seed"
_NAMING = ("campaign.name", "campaign.purpose")


def flat_settings(tables: Mapping[str, Any]) -> dict[str, Any]:
    """Every setting of a campaign file by its dotted key, e.g. `survival.models[1].covariates`, with the defaults.

    A file that this version would refuse is still listed, as it stands. The estimator's own defaults are left out.
    """
    settings: dict[str, Any] = {}
    for key, table in tables.items():
        model = TABLES.get(key)
        try:
            filled = model.model_validate(_as_tuples(table)).model_dump() if model is not None else table
        except ValidationError:
            filled = table
        _flatten(key, filled, settings)
    for name in tables.get("analyses", {}):
        settings[f"analyses.{name}"] = True
    for key in TABLES.keys() - tables.keys():
        default = Campaign.model_fields[key].get_default(call_default_factory=True)
        if isinstance(default, BaseModel):
            _flatten(key, default.model_dump(), settings)
    return settings


def differing(settings: Sequence[Mapping[str, Any]]) -> dict[str, tuple[Any, ...]]:
    """The settings that are not the same in all files, with each file's value; None where a file has none.

    What only names a campaign (its name and purpose) is left out.
    """
    keys = sorted({key for one in settings for key in one if key not in _NAMING})
    values = {key: tuple(one.get(key) for one in settings) for key in keys}
    return {
        key: values_of_key
        for key, values_of_key in values.items()
        if any(value != values_of_key[0] for value in values_of_key[1:])
    }


def but_for_the_seed(settings: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """What identifies a campaign file apart from its seed and its name."""
    return tuple((key, repr(value)) for key, value in sorted(settings.items()) if key not in (*_NAMING, SEED))


def _flatten(key: str, value: Any, into: dict[str, Any]) -> None:
    if isinstance(value, Mapping):
        for name, item in value.items():
            _flatten(f"{key}.{name}", item, into)
    elif isinstance(value, list | tuple) and any(isinstance(item, Mapping) for item in value):
        for number, item in enumerate(value, start=1):
            _flatten(f"{key}[{number}]", item, into)
    elif value is not None:
        into[key] = list(value) if isinstance(value, tuple) else value


def _as_tuples(value: Any) -> Any:
    """Lists as tuples, which is what the strict models take."""
    if isinstance(value, Mapping):
        return {key: _as_tuples(item) for key, item in value.items()}
    return tuple(_as_tuples(item) for item in value) if isinstance(value, list) else value
