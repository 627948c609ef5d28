"""A site's secrets for secure aggregation, and its account of the sums that it helped to open.

A key serves one sum: `mask` takes it out of use in the transaction that notes what was masked with it, `open_once` lets
one opening of that sum through, and the secrets are removed with it. The account of openings is kept for good, over all
runs and campaigns: which sites' sums were opened together, by a digest of what this site had in them.

Attack: sums over {A, B, C}, {A, D, E} and {B, C, D, E}, of which no two are near and no site is in all, give twice A's.
Rule: a statistic is opened over one set of sites for good, so that of what is opened of it no two sets have a site in
common. Residual risk: statistics that differ a little.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedage.client.site.durable import DurableFile
from fedage.client.site.sqlite import Tables, equal, insert, insert_all, scalars
from fedage.common.protocol.messages import RequestRefused

SECURE_FILE = "secure.db"
_ANOTHER_SET = "the same sums were opened before over other sites, and differences of such sums would tell of few"

_TABLES: Tables = {
    "channels": (
        "CREATE TABLE channels (run VARCHAR(128) NOT NULL, epoch VARCHAR(32) NOT NULL, private BLOB NOT NULL, "
        "told TEXT, PRIMARY KEY (run, epoch))",
    ),
    "sum_keys": (
        "CREATE TABLE sum_keys (run VARCHAR(128) NOT NULL, epoch VARCHAR(32) NOT NULL, number INTEGER NOT NULL, "
        "private BLOB, masked TEXT, opened VARCHAR(64), PRIMARY KEY (run, epoch, number))",
    ),
    "openings": (
        "CREATE TABLE openings (statistic VARCHAR(64) NOT NULL, sites TEXT NOT NULL, PRIMARY KEY (statistic, sites))",
    ),
}


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """One setting-up of a run: the private half of the site's channel, and all channels once they are known, JSON."""

    private: bytes
    told: str | None


class SumKeyStore:
    """The file of a home, or of a simulated site's state folder. Raises `StoreUnavailable` if it cannot be used."""

    def __init__(self, folder: Path) -> None:
        self._file = DurableFile(folder / SECURE_FILE, tables=_TABLES)

    def begin(self, run: str, epoch: str, *, private: bytes) -> None:
        """Note a setting-up.

        Raises
        ------
        RequestRefused
            If it was begun before: a channel has one key.
        """
        where = {"run": run, "epoch": epoch}
        with self._file.transaction() as connection:
            if connection.execute(f"SELECT 1 FROM channels WHERE {equal(where)}", where).fetchone():
                raise RequestRefused("secure-aggregation", "this setting-up was begun before; begin another one")
            insert(connection, "channels", {**where, "private": private, "told": None})

    def epoch(self, run: str, epoch: str) -> Epoch:
        """A setting-up. Raises `RequestRefused` if there is none."""
        where = {"run": run, "epoch": epoch}
        with self._file.reading() as connection:
            row = connection.execute(f"SELECT private, told FROM channels WHERE {equal(where)}", where).fetchone()
        if row is None:
            raise RequestRefused("secure-aggregation", "this site knows of no such setting-up; begin another one")
        return Epoch(private=row["private"], told=row["told"])

    def keep_keys(self, run: str, epoch: str, *, told: str, private: Sequence[bytes]) -> None:
        """Note all sites' channels and this site's keys, once.

        Raises
        ------
        RequestRefused
            If there are keys already: other channels may not get shares of the same.
        """
        where = {"run": run, "epoch": epoch}
        with self._file.transaction() as connection:
            changed = connection.execute(
                f"UPDATE channels SET told = :told WHERE {equal(where)} AND told IS NULL", {**where, "told": told}
            )
            if changed.rowcount != 1:
                raise RequestRefused("secure-aggregation", "this setting-up has its keys already; begin another one")
            rows = [{**where, "number": n, "private": key, "masked": None} for n, key in enumerate(private)]
            insert_all(connection, "sum_keys", rows)

    def private(self, run: str, epoch: str, number: int) -> bytes:
        """A private key. Raises `RequestRefused` if there is none, or it has served."""
        where = {"run": run, "epoch": epoch, "number": number}
        with self._file.reading() as connection:
            row = connection.execute(f"SELECT private, masked FROM sum_keys WHERE {equal(where)}", where).fetchone()
        if row is None or row["private"] is None or row["masked"] is not None:
            raise RequestRefused("secure-aggregation", "this site has no unused key for this sum; each serves once")
        return bytes(row["private"])

    def mask(self, run: str, epoch: str, number: int, *, masked: Mapping[str, Any]) -> None:
        """Take a key out of use, noting what is masked with it, on disk before anything leaves.

        Raises
        ------
        RequestRefused
            If it has served.
        """
        where = {"run": run, "epoch": epoch, "number": number}
        with self._file.transaction() as connection:
            changed = connection.execute(
                f"UPDATE sum_keys SET masked = :masked WHERE {equal(where)} AND masked IS NULL",
                {**where, "masked": json.dumps(masked)},
            )
            if changed.rowcount != 1:
                raise RequestRefused("secure-aggregation", "this site's key for this sum has served; each serves once")

    def masked(self, run: str, epoch: str, number: int) -> tuple[bytes, dict[str, Any]]:
        """The private key of a sum and what was masked with it.

        Raises
        ------
        RequestRefused
            If nothing was, or the sum was opened.
        """
        where = {"run": run, "epoch": epoch, "number": number}
        with self._file.reading() as connection:
            row = connection.execute(f"SELECT private, masked FROM sum_keys WHERE {equal(where)}", where).fetchone()
        if row is None or row["masked"] is None or row["private"] is None:
            raise RequestRefused(
                "secure-aggregation", "this site has masked nothing for this sum, or has helped to open it before"
            )
        return bytes(row["private"]), dict(json.loads(row["masked"]))

    def open_once(
        self,
        run: str,
        epoch: str,
        number: int,
        *,
        opening: str,
        statistics: Mapping[str, tuple[Sequence[str], Collection[str]]],
    ) -> dict[str, str]:
        """Account for an opening, on disk before anything leaves; then the secrets of the sum are gone.

        Parameters
        ----------
        opening
            Digest of what it was asked with.
        statistics
            By block, the digests that stand for what this site has in it, and the sites that contribute to it.

        Returns
        -------
        Why a block is not to be opened, by block.

        Raises
        ------
        RequestRefused
            If the sum was opened before.
        """
        where = {"run": run, "epoch": epoch, "number": number}
        refused: dict[str, str] = {}
        with self._file.transaction() as connection:
            changed = connection.execute(
                f"UPDATE sum_keys SET opened = :opening, private = NULL, masked = NULL "
                f"WHERE {equal(where)} AND opened IS NULL",
                {**where, "opening": opening},
            )
            if changed.rowcount != 1:
                raise RequestRefused("secure-aggregation", "this site has helped to open this sum before")
            for block, (digests, sites) in statistics.items():
                told, new = json.dumps(sorted(sites)), []
                for statistic in digests:
                    before = scalars(connection, "SELECT sites FROM openings WHERE statistic = ?", (statistic,))
                    if told in before:
                        continue
                    if before:
                        refused[block] = _ANOTHER_SET
                    new.append(statistic)
                if block not in refused:
                    insert_all(connection, "openings", [{"statistic": one, "sites": told} for one in new])
        return refused

    def close(self) -> None:
        """Close the file."""
        self._file.close()
