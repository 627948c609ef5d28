"""The site's ledger of ε: what each data set has spent, over all rounds and campaigns, kept for good.

What is charged is a mechanism (`common.privacy.accountant`), so that ε of everything together is their composition and
not a sum of figures. A request is charged once: what it asks, of which data, gives the same noise and the same answer
each time, and tells nothing the second time.

It is a file of its own beside the audit log: that one is only ever appended to, line after line, while the ledger is
asked for sums, and neither has to wait for the other. ε charged is a field of the audit log too, so that a ledger put
back from an older copy can be told.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from fedage.client.site.durable import LOCK_WAIT_S, DurableFile, StoreUnavailable
from fedage.client.site.sqlite import Connection, Tables, equal, insert, scalar, scalars
from fedage.common.errors import FedAgeError
from fedage.common.privacy.accountant import Budget, ChargeRefused, Mechanism, epsilon

LEDGER_FILE = "ledger.db"
_SLACK = 1e-9
"""A campaign whose noise was chosen to end exactly at the budget must not fail by the rounding of its last round."""
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")

_TABLES: Tables = {
    "charges": (
        "CREATE TABLE charges (id INTEGER NOT NULL, data_set VARCHAR(63) NOT NULL, digest VARCHAR(64) NOT NULL, "
        "round INTEGER NOT NULL, fold INTEGER NOT NULL, nonce VARCHAR(64) NOT NULL, sampling_rate FLOAT NOT NULL, "
        "noise_multiplier FLOAT NOT NULL, steps INTEGER NOT NULL, time_utc VARCHAR(27) NOT NULL, PRIMARY KEY (id), "
        "UNIQUE (digest, round, fold, nonce))",
        "CREATE INDEX ix_charges_data_set ON charges (data_set)",
    ),
    "answers": (
        "CREATE TABLE answers (content VARCHAR(64) NOT NULL, sha256 VARCHAR(64) NOT NULL, PRIMARY KEY (content))",
    ),
}
"""`nonce` is the digest of what an answer follows from. `answers` has the noised answer to each training charged: a
second one that is another has noise of its own, and costs again."""


class LedgerUnavailable(StoreUnavailable):
    """The ledger cannot be read or written: nothing private may be trained."""


class BudgetExceeded(FedAgeError):
    """A training would pass the data set's budget. Its text is for the site; `detail` may be sent.

    `detail` has no figures: how much a data set has spent may be on other coordinators' campaigns.
    """

    rule = "budget"
    detail = "this training would pass the ε budget of the site's data set"


class CampaignTotalExceeded(FedAgeError):
    """A training would pass what the approved file lets the site spend on it in all; as `BudgetExceeded`."""

    rule = "campaign-epsilon"
    detail = "this training would pass the ε that the approved campaign file lets this site spend on it"


@dataclass(frozen=True, kw_only=True)
class Balance:
    """Where a data set stands.

    Parameters
    ----------
    spent_epsilon
        ε of everything ever charged to it, at the budget's δ.
    charged_epsilon
        By how much the charge asked about moved it; 0 if it had been charged before.
    campaign_epsilon
        ε of everything charged to it by this campaign alone, at the δ of the campaign's total; None without one.
    """

    data_set: str
    budget: Budget
    spent_epsilon: float
    charged_epsilon: float = 0.0
    campaign_epsilon: float | None = None

    @property
    def left_epsilon(self) -> float:
        """What is left of the budget."""
        return max(0.0, self.budget.epsilon - self.spent_epsilon)


@dataclass(frozen=True, kw_only=True)
class CampaignSpending:
    """What one campaign alone spent on a data set. Such figures do not add up to the total."""

    digest: str
    charges: int
    epsilon: float


class Ledger:
    """The ledger in a site's home, `ledger.db`.

    Raises
    ------
    LedgerUnavailable
        If the file cannot be used; from every method too.
    """

    def __init__(self, home: Path, *, lock_wait_s: float = LOCK_WAIT_S) -> None:
        self._file = DurableFile(
            home / LEDGER_FILE, tables=_TABLES, unavailable=LedgerUnavailable, lock_wait_s=lock_wait_s
        )

    def charge(
        self,
        data_set: str,
        *,
        digest: str,
        round: int,
        fold: int,
        content: str,
        mechanism: Mechanism,
        budget: Budget,
        total: Budget | None = None,
    ) -> Balance:
        """Charge a training, on disk, before it begins. The same training again is charged once.

        Parameters
        ----------
        content
            Digest of everything that the noised answer follows from; at most 64 characters.
        budget, total
            What the data set may spend over all campaigns, and this campaign alone.

        Raises
        ------
        BudgetExceeded, CampaignTotalExceeded
            If ε composed with everything before would pass the budget or the total; nothing is charged then.
        ChargeRefused
            If this content was charged for another data set or mechanism.
        """
        _must_be_name(data_set)
        with self._file.transaction() as connection:
            history = _history(connection, data_set)
            before = epsilon(history, delta=budget.delta)
            own = _history(connection, data_set, digest)
            request: dict[str, int | str] = {"digest": digest, "round": round, "fold": fold, "nonce": content}
            if _charged_before(connection, request, data_set=data_set, mechanism=mechanism):
                spent = None if total is None else epsilon(own, delta=total.delta)
                return Balance(data_set=data_set, budget=budget, spent_epsilon=before, campaign_epsilon=spent)
            spent = None if total is None else epsilon([*own, mechanism], delta=total.delta)
            if total is not None and spent is not None and not spent <= total.epsilon * (1 + _SLACK):
                raise CampaignTotalExceeded(
                    f"data set {data_set}: the campaign would spend ε {spent:.4g} (δ = {total.delta:g}), its file says "
                    f"{total.epsilon:g}; a run that is to be repeated needs a campaign file of its own"
                )
            after = epsilon([*history, mechanism], delta=budget.delta)
            if not after <= budget.epsilon * (1 + _SLACK):
                raise BudgetExceeded(
                    f"data set {data_set}: ε would go from {before:.4g} to {after:.4g} (δ = {budget.delta:g}), its "
                    f"budget is {budget.epsilon:g}; ask for more noise or fewer rounds, or raise it in policy.toml"
                )
            row = {"data_set": data_set, **request, **vars(mechanism), "time_utc": _now()}
            insert(connection, "charges", row)
        return Balance(
            data_set=data_set,
            budget=budget,
            spent_epsilon=after,
            charged_epsilon=max(0.0, after - before),
            campaign_epsilon=spent,
        )

    def is_same_answer(self, *, content: str, sha256: str) -> bool:
        """Whether this is the answer that a charged training has given before, or its first; on disk then."""
        with self._file.transaction() as connection:
            known = scalar(connection, "SELECT sha256 FROM answers WHERE content = ?", (content,))
            if known is None:
                insert(connection, "answers", {"content": content, "sha256": sha256})
            return known in (None, sha256)

    def preview(self, data_set: str, *, mechanisms: Iterable[Mechanism], budget: Budget) -> Balance:
        """Where the data set would stand after these trainings: what an administrator reads before approving."""
        with self._file.reading() as connection:
            history = _history(connection, data_set)
        before = epsilon(history, delta=budget.delta)
        after = epsilon([*history, *mechanisms], delta=budget.delta)
        return Balance(data_set=data_set, budget=budget, spent_epsilon=after, charged_epsilon=max(0.0, after - before))

    def by_campaign(self, data_set: str, *, delta: float) -> tuple[CampaignSpending, ...]:
        """What each campaign alone spent, by digest."""
        with self._file.reading() as connection:
            by_digest = "SELECT digest, count(*) FROM charges WHERE data_set = ? GROUP BY digest ORDER BY digest"
            counts = connection.execute(by_digest, (data_set,)).fetchall()
            return tuple(
                CampaignSpending(
                    digest=digest, charges=count, epsilon=epsilon(_history(connection, data_set, digest), delta=delta)
                )
                for digest, count in counts
            )

    def data_sets(self) -> tuple[str, ...]:
        """Every data set that was ever charged."""
        with self._file.reading() as connection:
            return tuple(scalars(connection, "SELECT DISTINCT data_set FROM charges ORDER BY data_set"))

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _history(connection: Connection, data_set: str, digest: str | None = None) -> list[Mechanism]:
    """Everything charged to a data set, equal steps together, in an order that does not depend on when."""
    wanted = {"data_set": data_set} | ({} if digest is None else {"digest": digest})
    kind = "sampling_rate, noise_multiplier"
    rows = connection.execute(
        f"SELECT {kind}, sum(steps) FROM charges WHERE {equal(wanted)} GROUP BY {kind} ORDER BY {kind}", wanted
    )
    return [Mechanism(sampling_rate=q, noise_multiplier=sigma, steps=int(steps)) for q, sigma, steps in rows]


def _charged_before(
    connection: Connection, request: dict[str, int | str], *, data_set: str, mechanism: Mechanism
) -> bool:
    what = "data_set, sampling_rate, noise_multiplier, steps"
    row = connection.execute(f"SELECT {what} FROM charges WHERE {equal(request)}", request).fetchone()
    if row is None:
        return False
    known = Mechanism(**{name: row[name] for name in ("sampling_rate", "noise_multiplier", "steps")})
    if (row["data_set"], known) != (data_set, mechanism):
        raise ChargeRefused("this training was charged before, for another data set or mechanism")
    return True


def _must_be_name(data_set: str) -> None:
    if not _NAME.fullmatch(data_set):
        raise ChargeRefused("data_set must be 1 to 63 lower-case letters, digits and hyphens, as policy.toml names it")


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
