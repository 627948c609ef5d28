"""What is known of a campaign file once its mistakes are taken out, so that the other rules can still be checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel


@dataclass(frozen=True)
class ValidValues:
    """The right values of a file, by dotted key.

    Parameters
    ----------
    tables
        Table by table, what was given and is right by itself.
    models
        The model of each table, for its defaults.
    bad
        Dotted keys that were given wrongly: their value is not known.
    lost
        Last parts of keys on lines that could not be read.
    """

    tables: Mapping[str, Mapping[str, Any]]
    models: Mapping[str, type[BaseModel]]
    bad: frozenset[str] = frozenset()
    lost: frozenset[str] = frozenset()

    def has(self, table: str) -> bool:
        """Whether the file has this table, mistakes or not."""
        return table in self.tables

    def given(self, key: str) -> bool:
        """Whether the file has a right value for this key."""
        return self._lookup(key) is not None

    def wrong(self, key: str) -> bool:
        """Whether the file has this key, or something in it, and it is wrong."""
        return any(bad == key or bad.startswith((f"{key}.", f"{key}[")) for bad in self.bad) or (
            key.rpartition(".")[2] in self.lost
        )

    def __getitem__(self, key: str) -> Any:
        """The value of a key, else its default; None if it was given wrongly or has no default."""
        value = self._lookup(key)
        if value is not None:
            return value
        table, _, name = key.partition(".")
        field = self.models[table].model_fields.get(name)
        if field is None or self.wrong(key) or (self.wrong(table) and table in self.bad):
            return None
        default = field.get_default(call_default_factory=True, validated_data={})
        return None if field.is_required() else default

    def _lookup(self, key: str) -> Any:
        table, _, rest = key.partition(".")
        value: Any = self.tables.get(table, {})
        for part in rest.split("."):
            if not isinstance(value, Mapping) or part not in value:
                return None
            value = value[part]
        return value


def default_words(sound: ValidValues, key: str) -> str:
    return "" if sound.given(key) else " (the default)"
