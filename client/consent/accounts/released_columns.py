"""By which columns a site has given sums: two that are equal but for one patient give that patient away by subtraction.

Attack: two campaigns, of one coordinator or of two who share their results, each with a model of its own; the one has
covariate a, the other b, which is a but for one patient. Or one column, exported again with a value corrected between
the campaigns. Every rule for a single campaign lets both pass. Rule: the site keeps the columns by which sums left,
with whom they are of, for good and over all campaigns, coordinators and data sets, as subtraction works across all of
them and a patient may be in several. A later column that differs from one of them for a few patients, but not for
none, is in no sum (`influence_earlier`): a covariate or feature is left out, and an analysis that cannot do without the
column, such as one of follow-up times, is withheld. The same column again passes, also where patients have come or
gone, and the same question is answered as it was, whatever left in between.

What a campaign's own model makes is not kept: gaps by another model are other gaps for everybody, and a model that
differs by a hair is for the rules of model continuity.

Kept are the values with the keyed hashes of the patients (the site's key stays in its store), readable by the agent's
user alone. They are on disk before the sums by them leave. Residual risk: combinations of three columns; of a large
table, columns that differ for many patients, but for few of a part (`near_pairs` looks at all patients first).
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fedage.client.consent.accounts import columns_store
from fedage.client.consent.accounts.account_file import account_transaction
from fedage.client.consent.accounts.columns_store import TABLES, StoredColumn
from fedage.client.disclosure.guard import Withheld
from fedage.client.site.sqlite import Connection
from fedage.common.analyses.agreement import Agreed
from fedage.common.analyses.base import Analysis, Iterate
from fedage.common.analyses.columns_read import EARLIER, ColumnsRead, ReadsColumns, with_earlier, with_rows
from fedage.common.statistics.cohort import Cohort
from fedage.common.statistics.influence import RULE
from fedage.common.statistics.influence_earlier import differs_for_few, near_pairs
from fedage.common.statistics.statistic import FloatArray

logger = logging.getLogger(__name__)

RELEASED_FILE = "released-columns.db"
_ALL_PAIRS = 4_000
"""Up to so many pairs every earlier column is held against every group of patients that an analysis has; of more, those
that may be near over all of its patients."""


@dataclass(frozen=True, kw_only=True)
class EarlierColumns:
    """Columns whose sums left before, over the patients of a cohort.

    Parameters
    ----------
    ids
        Their numbers (r,) in the account.
    names, campaigns
        What they are called there, and the digest of the first campaign they were in, (r,).
    values
        (n, r), NaN where no sums left, inf where the value was missing.
    """

    ids: tuple[int, ...]
    names: tuple[str, ...]
    campaigns: tuple[str, ...]
    values: FloatArray

    def chosen(self, which: Sequence[int]) -> EarlierColumns:
        """Some of them, by place."""
        return EarlierColumns(
            ids=tuple(self.ids[i] for i in which),
            names=tuple(self.names[i] for i in which),
            campaigns=tuple(self.campaigns[i] for i in which),
            values=self.values[:, list(which)],
        )


@dataclass(frozen=True, kw_only=True)
class Question:
    """What an analysis is about to answer: the cohort it sees, and what is written down before the answer leaves."""

    cohort: Cohort
    read: ColumnsRead | None = None
    digest: str = ""
    compared_with: tuple[int, ...] = ()
    version: int = 0
    is_known: bool = True

    def over(self, cohort: Cohort) -> Cohort:
        """The same patients' cohort, of other values in what a model made, with the earlier columns of this one's."""
        earlier = {name: self.cohort[name] for name in self.cohort.columns if name.startswith(EARLIER)}
        return cohort.with_columns(**earlier) if earlier else cohort


class ReleasedColumns:
    """The account, as one campaign asks it.

    Parameters
    ----------
    folder
        Where it is kept: at a deployed site one folder for all campaigns.
    patients
        Keyed hashes of the cohort's patients, in the order of its rows.
    campaign
        Digest of the campaign file.
    of_the_model
        Columns that the campaign's own model makes.
    minimum_count
        Fewest patients for whom two columns may differ; 1 keeps no account, as single patients may be shown then.
    """

    def __init__(
        self,
        folder: Path,
        *,
        patients: Sequence[str],
        campaign: str,
        of_the_model: frozenset[str],
        minimum_count: int,
    ) -> None:
        self._path = folder / RELEASED_FILE
        self._patients, self._campaign, self._of_the_model = tuple(patients), campaign, of_the_model
        self._minimum_count = minimum_count

    def of_total(self) -> ReleasedColumns:
        """The account as it is asked of sums that leave hidden, which small sites may have a part in.

        At a site of a dozen patients any two columns differ for few; there those count that differ for a third or less.
        """
        if self._minimum_count == 1:
            return self
        asked = copy(self)
        asked._minimum_count = max(2, min(self._minimum_count, len(self._patients) // 3))
        return asked

    def question_of(self, analysis: Analysis, cohort: Cohort, iterate: Iterate) -> Question:
        """The question with the earlier columns that its own are held against as columns of its cohort.

        Raises
        ------
        Withheld
            Rule `influence` if a column that the analysis cannot do without nearly repeats an earlier one; rule
            `columns-unknown` if an installed package's analysis does not say which columns it reads; rule
            `store-unavailable` if the account cannot be read.
        """
        if self._minimum_count == 1:
            return Question(cohort=cohort)
        if not isinstance(analysis, ReadsColumns):
            raise Withheld(
                "columns-unknown",
                f"{analysis.name} does not say which columns it reads, so no account of them can be kept; its package "
                "has to give its analysis a columns_read",
            )
        read = self._without_model(analysis.columns_read(with_rows(cohort), iterate))
        values = {name: read.made[name] if name in read.made else cohort[name] for name in (*read.needed, *read.judged)}
        if not values or not read.rows.size:
            return Question(cohort=cohort)
        digest = self._digest(analysis, read, values, iterate)
        with self._transaction() as connection:
            known = columns_store.compared_with(connection, digest)
            version = columns_store.version_of(connection)
            is_accepted = columns_store.is_accepted(connection, self._campaign)
            # The others have been held against the earlier columns when the question was first asked, by this.
            holds_itself = bool(read.judged) or isinstance(analysis, Agreed)
            nothing_to_hold = is_accepted or (known is not None and not holds_itself)
            stored = columns_store.stored_columns(connection, () if nothing_to_hold else known)
        now = np.column_stack([column[read.rows] for column in values.values()])
        earlier = self._to_compare(stored, now, rows=read.rows, all_of_them=known is not None)
        if known is None:
            self._require_needed(list(values), now, earlier, needed=len(read.needed))
        compared_cohort = cohort
        if earlier.ids and holds_itself:
            whole = np.full((cohort.n, len(earlier.ids)), np.nan)
            whole[read.rows] = earlier.values
            compared_cohort = with_earlier(cohort, whole)
        return Question(
            cohort=compared_cohort,
            read=read,
            digest=digest,
            compared_with=earlier.ids,
            version=version,
            is_known=known is not None,
        )

    def keep(self, question: Question) -> bool:
        """Write down by which columns sums leave. False if others left since it was asked, so that it is asked anew.

        Raises
        ------
        Withheld
            Rule `store-unavailable` if the account cannot be written; then nothing may leave.
        """
        read = question.read
        if question.is_known or read is None or read.leave is None:
            return True
        packed = [
            columns_store.Packed.of(name, read.made[name] if name in read.made else question.cohort[name])
            for name in read.leave
        ]
        with self._transaction() as connection:
            if columns_store.version_of(connection) != question.version:
                return False
            columns_store.keep_columns(
                connection, packed, patients=self._patients, campaign=self._campaign, rows=read.rows
            )
            columns_store.keep_question(connection, question.digest, compared=question.compared_with)
        return True

    def accept(self, *, similar: bool) -> None:
        """Let nearly equal columns of this campaign through from now on, or no longer, as an approval says.

        An earlier approval's word is about the columns as they were then.

        Raises
        ------
        Withheld
            Rule `store-unavailable`.
        """
        if not similar and not self._path.exists():
            return
        with self._transaction() as connection:
            columns_store.accept(connection, self._campaign, similar=similar)

    def near_earlier(self, table: Mapping[str, FloatArray]) -> dict[str, tuple[str, str]]:
        """Of which columns (n,) of a campaign's patients sums would be withheld: its name and campaign of the earlier.

        Raises
        ------
        Withheld
            Rule `store-unavailable`.
        """
        if not self._path.exists() or not table:
            return {}
        with self._transaction() as connection:
            stored = columns_store.stored_columns(connection)
        now = np.column_stack(list(table.values()))
        earlier = self._to_compare(stored, now, rows=np.arange(len(now)), all_of_them=False)
        pairs = self._near(now, earlier)
        names = list(table)
        return {names[i]: (earlier.names[j], earlier.campaigns[j]) for i, j in pairs}

    @contextmanager
    def _transaction(self) -> Iterator[Connection]:
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with account_transaction(self._path, tables=TABLES) as connection:
            yield connection

    def _without_model(self, read: ColumnsRead) -> ColumnsRead:
        def own(names: tuple[str, ...]) -> tuple[str, ...]:
            return tuple(name for name in names if name not in self._of_the_model)

        leave = None if read.leave is None else own(read.leave)
        return ColumnsRead(
            rows=read.rows, needed=own(read.needed), judged=own(read.judged), leave=leave, made=read.made
        )

    def _digest(self, analysis: Analysis, read: ColumnsRead, values: Mapping[str, FloatArray], iterate: Iterate) -> str:
        """Of what is computed of whom, whatever it is called: the same question again is answered as it was."""
        leave = None if read.leave is None else frozenset(read.leave)
        digest = hashlib.sha256(type(getattr(analysis, "analysis", analysis)).__name__.encode())
        digest.update(self._sha256_of_patients().encode() + read.rows.astype("<i8").tobytes())
        digest.update(np.asarray(iterate.get("ends", ()), dtype="<f8").tobytes())
        for name, column in values.items():
            digest.update(b"kept" if leave is not None and name in leave else b"left")
            digest.update(columns_store.sha256_of(column).encode())
        return digest.hexdigest()

    def _sha256_of_patients(self) -> str:
        return hashlib.sha256("\n".join(self._patients).encode()).hexdigest()

    def _to_compare(
        self, stored: Sequence[StoredColumn], now: FloatArray, *, rows: NDArray[np.intp], all_of_them: bool
    ) -> EarlierColumns:
        """The earlier columns that columns (n, p) of the patients in `rows` are held against."""
        place = {patient: row for row, patient in enumerate(self._patients)}
        where = np.full(len(self._patients), -1, dtype=np.intp)
        where[rows] = np.arange(rows.size)
        blocks: list[EarlierColumns] = []
        keep_all = all_of_them or now.shape[1] * len(stored) <= _ALL_PAIRS
        for block in columns_store.blocks_of(stored):
            mine = np.array([place.get(patient, -1) for patient in block[0].patients], dtype=np.intp)
            mine = np.where(mine < 0, -1, where[mine])
            shared = np.flatnonzero(mine >= 0)
            if shared.size < self._minimum_count:
                continue
            earlier = np.full((rows.size, len(block)), np.nan)
            for number, each in enumerate(block):
                earlier[mine[shared], number] = each.released()[shared]
            one = EarlierColumns(
                ids=tuple(each.id for each in block),
                names=tuple(each.name for each in block),
                campaigns=tuple(each.campaign for each in block),
                values=earlier,
            )
            if not keep_all:
                near = near_pairs(now, earlier, minimum_count=self._minimum_count)
                one = one.chosen(np.unique(near[:, 1]).tolist())
            blocks.append(one)
        if not blocks:
            return EarlierColumns(ids=(), names=(), campaigns=(), values=np.empty((rows.size, 0)))
        return EarlierColumns(
            ids=tuple(number for one in blocks for number in one.ids),
            names=tuple(name for one in blocks for name in one.names),
            campaigns=tuple(digest for one in blocks for digest in one.campaigns),
            values=np.concatenate([one.values for one in blocks], axis=1),
        )

    def _near(self, now: FloatArray, earlier: EarlierColumns) -> list[tuple[int, int]]:
        """Pairs of a column of (n, p) and an earlier one that differ for a few."""
        least = self._minimum_count
        pairs = near_pairs(now, earlier.values, minimum_count=least)
        return [
            (int(i), int(j)) for i, j in pairs if differs_for_few(now[:, i], earlier.values[:, j], minimum_count=least)
        ]

    def _require_needed(self, names: list[str], now: FloatArray, earlier: EarlierColumns, *, needed: int) -> None:
        """Refuse the analysis if one of its first `needed` columns nearly repeats an earlier one.

        Attack: which column of which campaign it was, and for how many patients, tells of the few. Rule: the
        coordinator hears the column's name alone, the site's own log the rest.
        """
        for i, j in self._near(now, earlier):
            logger.warning(
                "column %r differs for fewer than %d patients from column %r of campaign %s…, whose sums left before",
                names[i],
                self._minimum_count,
                earlier.names[j],
                earlier.campaigns[j][:16],
            )
            if i < needed:
                raise Withheld(
                    RULE,
                    f"{names[i]}, which this analysis cannot do without, differs for too few patients from a column "
                    "whose sums left this site before; the two together would give these few away",
                )
