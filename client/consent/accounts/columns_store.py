"""Columns by which sums left, as they lie on disk: values compressed, with whom they are of and of whom sums left."""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedage.client.disclosure.guard import Withheld
from fedage.client.site.sqlite import Connection, Tables, insert, insert_all, scalar
from fedage.common.statistics.statistic import FloatArray

_COLUMNS_AT_ONCE = 512

TABLES: Tables = {
    "cohorts": (
        "CREATE TABLE cohorts (id INTEGER NOT NULL, sha256 VARCHAR(64) NOT NULL, patients BLOB NOT NULL, "
        "PRIMARY KEY (id), UNIQUE (sha256))",
    ),
    "columns": (
        "CREATE TABLE columns (id INTEGER NOT NULL, cohort INTEGER NOT NULL, sha256 VARCHAR(64) NOT NULL, "
        "name VARCHAR NOT NULL, campaign VARCHAR(64) NOT NULL, column_values BLOB NOT NULL, members BLOB NOT NULL, "
        "PRIMARY KEY (id), FOREIGN KEY(cohort) REFERENCES cohorts (id))",
        "CREATE INDEX ix_columns_cohort ON columns (cohort)",
        "CREATE INDEX ix_columns_sha256 ON columns (sha256)",
    ),
    # What was answered, and which earlier columns it was then held against.
    "questions": (
        "CREATE TABLE questions (id INTEGER NOT NULL, sha256 VARCHAR(64) NOT NULL, compared_with VARCHAR NOT NULL, "
        "PRIMARY KEY (id), UNIQUE (sha256))",
    ),
    # Campaigns whose nearly equal columns the administrator lets through.
    "campaigns_accepted": ("CREATE TABLE campaigns_accepted (campaign VARCHAR(64) NOT NULL, PRIMARY KEY (campaign))",),
}


@dataclass(frozen=True, kw_only=True)
class StoredColumn:
    """A column as it lies in the account; unpacked only when it is compared."""

    id: int
    cohort: int
    name: str
    campaign: str
    column_values: bytes
    members: bytes
    patients: tuple[str, ...]

    def released(self) -> FloatArray:
        """Values (patients,), inf where one was missing and NaN where no sums left.

        Raises
        ------
        Withheld
            Rule `store-unavailable` if the account is damaged.
        """
        try:
            values = np.frombuffer(zlib.decompress(self.column_values), dtype="<f8")
            inside = np.unpackbits(np.frombuffer(self.members, dtype=np.uint8), count=len(self.patients)) == 1
            return np.where(inside, np.where(np.isfinite(values), values, np.inf), np.nan)
        except (zlib.error, ValueError):
            raise Withheld("store-unavailable", "the site cannot read its account of what it has answered") from None


def stored_columns(connection: Connection, ids: Collection[int] | None = None) -> list[StoredColumn]:
    """The columns of these numbers, or all, cohort by cohort."""
    if ids is not None and not ids:
        return []
    what = "id, cohort, name, campaign, column_values, members"
    rows = connection.execute(f"SELECT {what} FROM columns ORDER BY cohort, id").fetchall()
    patients = {
        number: tuple(packed.decode("ascii").split("\n"))
        for number, packed in connection.execute("SELECT id, patients FROM cohorts")
    }
    return [
        StoredColumn(
            id=row["id"],
            cohort=row["cohort"],
            name=row["name"],
            campaign=row["campaign"],
            column_values=row["column_values"],
            members=row["members"],
            patients=patients[row["cohort"]],
        )
        for row in rows
        if ids is None or row["id"] in ids
    ]


def blocks_of(stored: Sequence[StoredColumn]) -> Iterator[list[StoredColumn]]:
    """Columns of one cohort, so many at once as fit into memory."""
    block: list[StoredColumn] = []
    for each in stored:
        if block and (each.cohort != block[0].cohort or len(block) == _COLUMNS_AT_ONCE):
            yield block
            block = []
        block.append(each)
    if block:
        yield block


def version_of(connection: Connection) -> int:
    """A number that rises whenever a question is kept."""
    return int(scalar(connection, "SELECT coalesce(max(id), 0) FROM questions"))


def compared_with(connection: Connection, question: str) -> tuple[int, ...] | None:
    """The earlier columns that a question was held against when it was answered; None if it never was."""
    text = scalar(connection, "SELECT compared_with FROM questions WHERE sha256 = ?", (question,))
    return None if text is None else tuple(json.loads(text))


def keep_question(connection: Connection, question: str, *, compared: Sequence[int]) -> None:
    """Write down that a question is answered, and which earlier columns it was held against."""
    insert(connection, "questions", {"sha256": question, "compared_with": json.dumps(list(compared))})


def is_accepted(connection: Connection, campaign: str) -> bool:
    """Whether the administrator lets nearly equal columns of a campaign through."""
    known = "SELECT campaign FROM campaigns_accepted WHERE campaign = ?"
    return scalar(connection, known, (campaign,)) is not None


def accept(connection: Connection, campaign: str, *, similar: bool) -> None:
    """Write down whether the administrator lets nearly equal columns of a campaign through."""
    connection.execute("DELETE FROM campaigns_accepted WHERE campaign = ?", (campaign,))
    if similar:
        insert(connection, "campaigns_accepted", {"campaign": campaign})


@dataclass(frozen=True, kw_only=True)
class Packed:
    """A column's values, compressed, before the account is locked for writing."""

    name: str
    sha256: str
    column_values: bytes

    @classmethod
    def of(cls, name: str, values: FloatArray) -> Packed:
        """Of a column's values (n,)."""
        return cls(name=name, sha256=sha256_of(values), column_values=zlib.compress(values.astype("<f8").tobytes(), 1))


def keep_columns(
    connection: Connection,
    packed: Sequence[Packed],
    *,
    patients: Sequence[str],
    campaign: str,
    rows: NDArray[np.intp],
) -> None:
    """Write down that sums by columns of a cohort leave, with the places of those in the sums."""
    cohort = _number_of(connection, patients)
    members = np.zeros(len(patients), dtype=np.bool_)
    members[rows] = True
    this_cohort = connection.execute("SELECT sha256, id, members FROM columns WHERE cohort = ?", (cohort,))
    known = {row["sha256"]: row for row in this_cohort}
    new = {each.sha256: each for each in packed if each.sha256 not in known}
    mine = {"cohort": cohort, "campaign": campaign, "members": np.packbits(members).tobytes()}
    values = [
        {"sha256": each.sha256, "name": each.name, "column_values": each.column_values, **mine} for each in new.values()
    ]
    insert_all(connection, "columns", values)
    for sha256 in {each.sha256 for each in packed} & known.keys():
        before = np.unpackbits(np.frombuffer(known[sha256]["members"], dtype=np.uint8), count=members.size) == 1
        if (members & ~before).any():
            both = np.packbits(before | members).tobytes()
            connection.execute("UPDATE columns SET members = ? WHERE id = ?", (both, known[sha256]["id"]))


def _number_of(connection: Connection, patients: Sequence[str]) -> int:
    """The number of a cohort, which is written down if it is new."""
    text = "\n".join(patients)
    sha256 = hashlib.sha256(text.encode()).hexdigest()
    known = scalar(connection, "SELECT id FROM cohorts WHERE sha256 = ?", (sha256,))
    if known is not None:
        return int(known)
    return insert(connection, "cohorts", {"sha256": sha256, "patients": text.encode()})


def sha256_of(values: FloatArray) -> str:
    """Of a column's values (n,), with one bit pattern for what is missing."""
    known = np.where(np.isfinite(values), values, np.nan).astype("<f8")
    return hashlib.sha256(known.tobytes()).hexdigest()
