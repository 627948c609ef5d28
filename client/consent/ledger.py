"""The site's ledger of ε: what each data set has spent, over all rounds and campaigns, kept for good.

Every noisy training is a sampled Gaussian mechanism: each patient joins a step with probability q (Poisson sampling),
the sum of clipped gradients gets noise of σ times the clip norm, T steps. Adjacency is adding or removing one patient.
Rényi DP adds up over steps, rounds and campaigns, ε_α = Σ T·ε_α(q, σ) (Mironov, Talwar, Zhang 2019, arXiv 1908.10530),
and converts to (ε, δ) once, at the end (Balle et al. 2020, arXiv 1905.09982, Theorem 21):

    ε = min over α of  ε_α + log((α − 1)/α) − (log δ + log α)/(α − 1).

It is a file of its own beside the audit log: that one is only ever appended to, line after line, while the ledger is
asked for sums, and neither has to wait for the other. ε charged is a field of the audit log too, so that a ledger put
back from an older copy can be told.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path

import numpy as np

from fedage.client.site.durable import LOCK_WAIT_S, DurableFile, StoreUnavailable
from fedage.client.site.sqlite import Connection, Tables, equal, insert, scalars
from fedage.common.errors import FedAgeError
from fedage.common.statistics.statistic import FloatArray

LEDGER_FILE = "ledger.db"
ORDERS: tuple[float, ...] = (
    *(1 + x / 10 for x in range(1, 100)),
    *(float(order) for order in range(12, 64)),
    *(64.0, 72.0, 80.0, 96.0, 112.0, 128.0, 160.0, 192.0, 256.0, 384.0, 512.0),
)
"""Rényi orders α: those of Opacus, and larger ones for budgets well below 1."""

_SLACK = 1e-9
"""A campaign whose noise was chosen to end exactly at the budget must not fail by the rounding of its last round."""
_RATE, _NOISE, _STEPS = (1e-9, 1.0), (0.05, 1000.0), (1, 100_000_000)
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")

_TABLES: Tables = {
    "charges": (
        "CREATE TABLE charges (id INTEGER NOT NULL, data_set VARCHAR(63) NOT NULL, digest VARCHAR(64) NOT NULL, "
        "round INTEGER NOT NULL, fold INTEGER NOT NULL, nonce VARCHAR(64) NOT NULL, sampling_rate FLOAT NOT NULL, "
        "noise_multiplier FLOAT NOT NULL, steps INTEGER NOT NULL, time_utc VARCHAR(27) NOT NULL, PRIMARY KEY (id), "
        "UNIQUE (digest, round, fold, nonce))",
        "CREATE INDEX ix_charges_data_set ON charges (data_set)",
    ),
}


class LedgerUnavailable(StoreUnavailable):
    """The ledger cannot be read or written: nothing private may be trained."""


class ChargeRefused(FedAgeError):
    """A charge that makes no sense: a mechanism out of bounds, or a nonce used for something else before."""


class BudgetExceeded(FedAgeError):
    """A training would pass the data set's budget. Its text is for the site; `detail` may be sent.

    `detail` has no figures: how much a data set has spent may be on other coordinators' campaigns.
    """

    rule = "budget"
    detail = "this training would pass the ε budget of the site's data set"


@dataclass(frozen=True, kw_only=True)
class Mechanism:
    """One training as a sampled Gaussian mechanism.

    Parameters
    ----------
    sampling_rate
        q, the probability with which a patient joins a step, in (0, 1].
    noise_multiplier
        σ, the noise's standard deviation over the clip norm.
    steps
        T, how many noisy steps.
    """

    sampling_rate: float
    noise_multiplier: float
    steps: int

    def __post_init__(self) -> None:
        bounds = {"sampling_rate": _RATE, "noise_multiplier": _NOISE, "steps": _STEPS}
        for name, (low, high) in bounds.items():
            value = getattr(self, name)
            if not low <= value <= high:  # NaN too
                raise ChargeRefused(f"{name}={value} must be from {low:g} to {high:g}; see [privacy] of the campaign")
        if type(self.steps) is not int:
            raise ChargeRefused(f"steps={self.steps} must be a whole number")


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What a data set may spend in all: ε at δ."""

    epsilon: float
    delta: float

    def __post_init__(self) -> None:
        if not 0 < self.epsilon < math.inf or not 0 < self.delta < 1:
            raise ChargeRefused(f"epsilon={self.epsilon} must be > 0 and delta={self.delta} between 0 and 1")


@dataclass(frozen=True, kw_only=True)
class Balance:
    """Where a data set stands.

    Parameters
    ----------
    spent_epsilon
        ε of everything ever charged to it, at the budget's δ.
    charged_epsilon
        By how much the charge asked about moved it; 0 if it had been charged before.
    """

    data_set: str
    budget: Budget
    spent_epsilon: float
    charged_epsilon: float = 0.0

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
        nonce: str,
        mechanism: Mechanism,
        budget: Budget,
    ) -> Balance:
        """Charge a training, on disk, before it begins. The same request again is charged once.

        Raises
        ------
        BudgetExceeded
            If ε composed with everything before would pass the budget; nothing is charged then.
        ChargeRefused
            If this nonce was charged for another data set or mechanism.
        """
        _must_be_name(data_set)
        _rdp(mechanism.sampling_rate, mechanism.noise_multiplier)  # slow the first time: not while holding the lock
        with self._file.transaction() as connection:
            history = _history(connection, data_set)
            before = epsilon(history, delta=budget.delta)
            request: dict[str, int | str] = {"digest": digest, "round": round, "fold": fold, "nonce": nonce}
            if _charged_before(connection, request, data_set=data_set, mechanism=mechanism):
                return Balance(data_set=data_set, budget=budget, spent_epsilon=before)
            after = epsilon([*history, mechanism], delta=budget.delta)
            if not after <= budget.epsilon * (1 + _SLACK):
                raise BudgetExceeded(
                    f"data set {data_set}: ε would go from {before:.4g} to {after:.4g} (δ = {budget.delta:g}), its "
                    f"budget is {budget.epsilon:g}; ask for more noise or fewer rounds, or raise it in policy.toml"
                )
            row = {"data_set": data_set, **request, **vars(mechanism), "time_utc": _now()}
            insert(connection, "charges", row)
        return Balance(data_set=data_set, budget=budget, spent_epsilon=after, charged_epsilon=after - before)

    def preview(self, data_set: str, *, mechanisms: Iterable[Mechanism], budget: Budget) -> Balance:
        """Where the data set would stand after these trainings: what an administrator reads before approving."""
        with self._file.reading() as connection:
            history = _history(connection, data_set)
        before = epsilon(history, delta=budget.delta)
        after = epsilon([*history, *mechanisms], delta=budget.delta)
        return Balance(data_set=data_set, budget=budget, spent_epsilon=after, charged_epsilon=after - before)

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


def epsilon(mechanisms: Iterable[Mechanism], *, delta: float) -> float:
    """ε at δ of these mechanisms one after another; 0 for none, infinite where no order bounds it."""
    total: FloatArray = np.zeros(len(ORDERS))
    count = 0
    for mechanism in mechanisms:
        total = total + mechanism.steps * _rdp(mechanism.sampling_rate, mechanism.noise_multiplier)
        count += 1
    if count == 0:
        return 0.0
    orders = np.asarray(ORDERS)
    by_order = total + np.log((orders - 1) / orders) - (math.log(delta) + np.log(orders)) / (orders - 1)
    return max(0.0, float(np.min(np.where(np.isnan(by_order), np.inf, by_order))))


@lru_cache(maxsize=512)
def _rdp(sampling_rate: float, noise_multiplier: float) -> FloatArray:
    """ε_α of one step for every order, shape (len(ORDERS),)."""
    from opacus.accountants.analysis.rdp import compute_rdp  # type: ignore[import-untyped]  # brings torch along

    try:
        values = compute_rdp(q=sampling_rate, noise_multiplier=noise_multiplier, steps=1, orders=list(ORDERS))
    except (ValueError, OverflowError, ZeroDivisionError):
        raise ChargeRefused(
            f"sampling_rate={sampling_rate:g} with noise_multiplier={noise_multiplier:g} cannot be accounted for; "
            "choose a larger noise multiplier"
        ) from None
    rdp = np.maximum(np.asarray(values, dtype=np.float64), 0.0)
    rdp.flags.writeable = False
    return rdp


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
        raise ChargeRefused("this request was charged before, for another data set or mechanism; send a new nonce")
    return True


def _must_be_name(data_set: str) -> None:
    if not _NAME.fullmatch(data_set):
        raise ChargeRefused("data_set must be 1 to 63 lower-case letters, digits and hyphens, as policy.toml names it")


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
