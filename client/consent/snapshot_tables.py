"""The tables of frozen cohorts, and how keyed hashes lie in them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable

from fedage.client.site.sqlite import Tables
from fedage.common.errors import FedAgeError

_HASH = re.compile(r"[0-9a-f]{32,128}")

TABLES: Tables = {
    "cohorts_asked_for": ("CREATE TABLE cohorts_asked_for (sha256 VARCHAR(64) NOT NULL, PRIMARY KEY (sha256))",),
    "cohorts": (
        "CREATE TABLE cohorts (id INTEGER NOT NULL, data_set VARCHAR(63) NOT NULL, sha256 VARCHAR(64) NOT NULL, "
        "patients INTEGER NOT NULL, hashes BLOB NOT NULL, PRIMARY KEY (id))",
        "CREATE INDEX ix_cohorts_data_set ON cohorts (data_set)",
    ),
    "frozen": (
        "CREATE TABLE frozen (id INTEGER NOT NULL, digest VARCHAR(64) NOT NULL, cohort INTEGER NOT NULL, "
        "time_utc VARCHAR(27) NOT NULL, PRIMARY KEY (id), FOREIGN KEY(cohort) REFERENCES cohorts (id))",
        "CREATE INDEX ix_frozen_digest ON frozen (digest)",
    ),
    "cells": (
        "CREATE TABLE cells (frozen INTEGER NOT NULL, name VARCHAR(128) NOT NULL, members BLOB NOT NULL, "
        "PRIMARY KEY (frozen, name), FOREIGN KEY(frozen) REFERENCES frozen (id))",
    ),
    "patients_values": (
        "CREATE TABLE patients_values (frozen INTEGER NOT NULL, rows BLOB NOT NULL, sha256 VARCHAR(64) NOT NULL, "
        "PRIMARY KEY (frozen), FOREIGN KEY(frozen) REFERENCES frozen (id))",
    ),
}


class NoHash(FedAgeError):
    """Something among the patients is no keyed hash. The message does not quote it."""


def sorted_hashes(patients: Iterable[str]) -> tuple[str, ...]:
    """The patients' keyed hashes, each once, sorted. Raises `NoHash` for anything else."""
    hashes = set(patients)
    if not all(_HASH.fullmatch(str(member)) for member in hashes) or len({len(member) for member in hashes}) > 1:
        raise NoHash("patients must be keyed hashes of one length, 32 to 128 hexadecimal digits in lower case")
    return tuple(sorted(hashes))


def packed(members: tuple[str, ...]) -> bytes:
    """Sorted hashes as they are stored: one a line."""
    return "\n".join(members).encode()


def unpacked(hashes: bytes) -> tuple[str, ...]:
    """The reverse of `packed`."""
    return tuple(hashes.decode().split("\n")) if hashes else ()


def cohort_sha256(members: tuple[str, ...]) -> str:
    """SHA-256 of a cohort's sorted hashes."""
    return hashlib.sha256(packed(members)).hexdigest()


def rows_sha256(rows: bytes) -> str:
    """SHA-256 of what a campaign reads of the patients."""
    return hashlib.sha256(rows).hexdigest()
