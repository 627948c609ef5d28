"""The tables of frozen cohorts, and how keyed hashes lie in them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable

from sqlalchemy import Column, ForeignKey, Integer, LargeBinary, MetaData, String, Table

from fedage.common.errors import FedAgeError

_HASH = re.compile(r"[0-9a-f]{32,128}")

metadata = MetaData()
cohorts_asked_for = Table(
    "cohorts_asked_for",
    metadata,
    Column("sha256", String(64), primary_key=True),
)
cohorts = Table(
    "cohorts",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("data_set", String(63), nullable=False, index=True),
    Column("sha256", String(64), nullable=False),
    Column("patients", Integer, nullable=False),
    Column("hashes", LargeBinary, nullable=False),
)
frozen = Table(
    "frozen",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("digest", String(64), nullable=False, index=True),
    Column("cohort", ForeignKey(cohorts.c.id), nullable=False),
    Column("time_utc", String(27), nullable=False),
)

cells = Table(
    "cells",
    metadata,
    Column("frozen", ForeignKey(frozen.c.id), primary_key=True),
    Column("name", String(128), primary_key=True),
    Column("members", LargeBinary, nullable=False),
)
values = Table(
    "patients_values",
    metadata,
    Column("frozen", ForeignKey(frozen.c.id), primary_key=True),
    Column("rows", LargeBinary, nullable=False),
    Column("sha256", String(64), nullable=False),
)


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
