"""A site's secrets for secure aggregation, and its account of the sums that it helped to open.

A key serves one sum: `mask` takes it out of use in the transaction that notes what was masked with it, `open_once` lets
one opening of that sum through, and the secrets are removed with it. The account of openings is kept for good, over all
runs and campaigns: over which sites the sums of each family were opened that this site had a part in. A family is an
analysis of a column of a data set, or the training of an estimator on it, whatever the model or the iterate; and what
this site's own figures stand for, under whatever name they are asked.

Attack: the same over one site fewer, at an iterate or a model that differs by a hair. Rule: `common.privacy.site_sets`,
before this site tells its own part of what opens a sum. Residual risk: two families that tell nearly the same; an
administrator who accepts a campaign over other sites.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from fedage.client.site.durable import DurableFile
from fedage.client.site.sqlite import Connection, Tables, equal, insert, insert_all, scalar, scalars
from fedage.common.privacy.site_sets import SiteSet, sites_alone
from fedage.common.protocol.messages import RequestRefused

SECURE_FILE = "secure.db"

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
    ),  # of releases that knew no families: read, not written
    "site_sets": (
        "CREATE TABLE site_sets (family VARCHAR(64) NOT NULL, sites TEXT NOT NULL, agreed TEXT NOT NULL, "
        "minimum INTEGER NOT NULL, PRIMARY KEY (family, sites))",
    ),
    "other_sites": ("CREATE TABLE other_sites (campaign VARCHAR(64) NOT NULL PRIMARY KEY)",),
}


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """One setting-up of a run: the private half of the site's channel, and all channels once they are known, JSON."""

    private: bytes
    told: str | None


class Judged(NamedTuple):
    """A family of a sum, and the sites of it; whether it is noted, or only held against what was."""

    family: str
    now: SiteSet
    is_noted: bool = True


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
        families: Mapping[str, Sequence[Judged]],
        campaign: str = "",
    ) -> dict[str, frozenset[str]]:
        """Account for an opening, on disk before anything leaves; then the secrets of the sum are gone.

        Parameters
        ----------
        opening
            Digest of what it was asked with.
        families
            By block, the families that it is of, each with the sites of it.
        campaign
            Digest of the campaign file; of one accepted over other sites (`accept`) the account begins anew.

        Returns
        -------
        By block that is not to be opened, the sites whose sums would be found by subtraction.

        Raises
        ------
        RequestRefused
            If the sum was opened before.
        """
        where = {"run": run, "epoch": epoch, "number": number}
        refused: dict[str, frozenset[str]] = {}
        with self._file.transaction() as connection:
            changed = connection.execute(
                f"UPDATE sum_keys SET opened = :opening, private = NULL, masked = NULL "
                f"WHERE {equal(where)} AND opened IS NULL",
                {**where, "opening": opening},
            )
            if changed.rowcount != 1:
                raise RequestRefused("secure-aggregation", "this site has helped to open this sum before")
            accepted = _is_accepted(connection, campaign)
            for block, of_block in families.items():
                alone = {
                    each: sites_alone(each.now, _sets(connection, each.family, minimum=each.now.minimum))
                    for each in of_block
                }
                if any(alone.values()) and not accepted:
                    refused[block] = frozenset[str]().union(*alone.values())
                    continue
                for each in of_block:
                    if alone[each]:
                        connection.execute("DELETE FROM site_sets WHERE family = ?", (each.family,))
                        connection.execute("DELETE FROM openings WHERE statistic = ?", (each.family,))
                    if each.is_noted:
                        _note(connection, each.family, each.now)
        return refused

    def must_fit(self, family: str, now: SiteSet, *, campaign: str) -> frozenset[str]:
        """The sites whose sums would be found by subtraction, whichever of these a sum is over; none if one may be."""
        with self._file.reading() as connection:
            if _is_accepted(connection, campaign):
                return frozenset()
            sets = _sets(connection, family, minimum=now.minimum)
        alone: set[str] = set()
        for before in sets:  # one that was in none before may have nothing to add in the end
            alone |= sites_alone(replace(now, sites=now.sites & before.sites), [before])
        return frozenset(alone)

    def accept(self, campaign: str, *, other_sites: bool) -> None:
        """Let sums of a campaign be opened over other sites than before from now on, or no longer, as approved."""
        with self._file.transaction() as connection:
            connection.execute("DELETE FROM other_sites WHERE campaign = ?", (campaign,))
            if other_sites:
                insert(connection, "other_sites", {"campaign": campaign})

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def accept_other_sites(home: Path, campaign: str, *, other_sites: bool) -> None:
    """`SumKeyStore.accept` of a home. Raises `StoreUnavailable` if its file cannot be used."""
    store = SumKeyStore(home)
    try:
        store.accept(campaign, other_sites=other_sites)
    finally:
        store.close()


def _is_accepted(connection: Connection, campaign: str) -> bool:
    return scalar(connection, "SELECT 1 FROM other_sites WHERE campaign = ?", (campaign,)) is not None


def _sets(connection: Connection, family: str, *, minimum: int) -> list[SiteSet]:
    """The sets of sites over which sums of a family were opened."""
    rows = connection.execute("SELECT sites, agreed, minimum FROM site_sets WHERE family = ?", (family,)).fetchall()
    sets = [_site_set(sites, agreed=agreed, minimum=fewest) for sites, agreed, fewest in rows]
    old = scalars(connection, "SELECT sites FROM openings WHERE statistic = ?", (family,))
    return sets + [_site_set(sites, agreed="[]", minimum=minimum) for sites in old]


def _site_set(sites: str, *, agreed: str, minimum: int) -> SiteSet:
    return SiteSet(sites=frozenset(json.loads(sites)), agreed=frozenset(json.loads(agreed)), minimum=minimum)


def _note(connection: Connection, family: str, now: SiteSet) -> None:
    """Note a set; of the same set as before the sites' newest word counts."""
    fields = {"agreed": json.dumps(sorted(now.agreed)), "minimum": now.minimum}
    where = {"family": family, "sites": json.dumps(sorted(now.sites))}
    connection.execute(f"DELETE FROM site_sets WHERE {equal(where)}", where)
    insert(connection, "site_sets", {**where, **fields})
