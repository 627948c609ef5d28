"""What the keys of a policy say against each other, and values that a pattern alone would explain badly."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from fedage.client.consent.policy.hours import NoWindow, minutes
from fedage.client.consent.policy.types import WEEKDAYS
from fedage.common.toml.problems import Problem
from fedage.common.toml.tables import Checked
from fedage.common.toml.words import show

_FINGERPRINT = re.compile(r"[0-9a-f]{64}")
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")


def contradictions(
    tables: Mapping[str, Checked], data_sets: Mapping[str, Checked], *, lost: frozenset[str]
) -> list[Problem]:
    """Every such mistake in what is right so far.

    Parameters
    ----------
    tables, data_sets
        The tables after their own checks, by name.
    lost
        Keys on lines that could not be read.
    """
    problems: list[Problem] = []
    if "requests" in tables:
        problems += _requests(tables["requests"].sound)
    if "hours" in tables:
        problems += _hours(tables["hours"].sound)
        if not tables["hours"].problems and not lost and not any(tables["hours"].sound.get(day) for day in WEEKDAYS):
            what = "[hours] opens no weekday: no work would ever begin; give one a window, or leave [hours] out"
            problems.append(Problem("hours", what))
    for name, table in data_sets.items():
        problems += _data_set(name, table.sound, bad={*(key.rpartition(".")[2] for key in table.bad), *lost})
    return problems


def _requests(table: Mapping[str, Any]) -> Iterator[Problem]:
    for number, value in enumerate(table.get("coordinators", ()), start=1):
        if value is not None and not _FINGERPRINT.fullmatch(value):
            key = f"requests.coordinators[{number}]"
            yield Problem(
                key,
                f"{key} = {show(value)}: must be 64 hexadecimal digits in lower case, the SHA-256 of the coordinator's "
                "public key; ask the coordinator for it",
            )
    kinds = table.get("kinds")
    if kinds is not None and None not in kinds and "describe" not in kinds:
        yield Problem(
            "requests.kinds",
            f'requests.kinds = {show(kinds)}: must have "describe", or no campaign can be offered; add it',
        )


def _hours(table: Mapping[str, Any]) -> Iterator[Problem]:
    zone = table.get("time_zone")
    if zone is not None and not _is_zone(zone):
        yield Problem(
            "hours.time_zone",
            f"hours.time_zone = {show(zone)}: must be a zone of the IANA database; write e.g. Europe/Berlin or UTC",
        )
    for day in WEEKDAYS:
        for number, window in enumerate(table.get(day, ()), start=1):
            key = f"hours.{day}[{number}]"
            try:
                minutes("00:00-24:00" if window is None else window)
            except NoWindow:
                yield Problem(
                    key,
                    f'{key} = {show(window)}: must be two different times as "HH:MM-HH:MM" in 24 hours; write e.g. '
                    '"18:00-06:00" for a night or "00:00-24:00" for a day',
                )


def _is_zone(name: str) -> bool:
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return False
    return True


def _data_set(name: str, table: Mapping[str, Any], *, bad: Collection[str]) -> Iterator[Problem]:
    key = f"data_sets.{name}"
    if not _NAME.fullmatch(name):
        yield Problem(key, f"[{key}]: a name must be 1 to 63 lower-case letters, digits and hyphens; rename it")
    youngest, oldest = table.get("age_min_years", 0.0), table.get("age_max_years", 130.0)
    if not {"age_min_years", "age_max_years"} & set(bad) and youngest >= oldest:
        yield Problem(
            f"{key}.age_min_years",
            f"{key}.age_min_years = {show(youngest)}: must be < age_max_years = {show(oldest)}; lower it",
        )
    for given, needed in (("epsilon", "delta"), ("delta", "epsilon")):
        if given in table and needed not in table and needed not in bad:
            yield Problem(
                f"{key}.{needed}",
                f"{key}.{needed} is missing: {given} = {show(table[given])} means nothing without it; "
                f"add {needed}{', e.g. 1e-5, below 1 over the number of patients' if needed == 'delta' else ''}",
            )
