"""The influence (dominance) rule: no sum of products that leaves a site may be the record of one or of few patients.

Attack: a minimum count of patients behind a sum says nothing of how many *move* it. The row of Σzzᵀ that belongs to a
0/1 column of one patient is that patient's record, and so is the difference of two columns that are equal but for one.

Rule, in every group of patients whose sums leave, whatever the request, from the site's own values alone:

1. a column either is the same for everybody, or at least the minimum count of patients differ from its most frequent
   value (all of them, where no two are equal), and fewer do not make up nearly all of it (`influence_few`);
2. of every entry Σᵢ aᵢbᵢ, a and b centred at the group's own mean, no patient has more than `largest_share` of
   Σᵢ |aᵢbᵢ|: absolute, because a signed sum passes zero;
3. each cell of the table of two columns of two values is empty or holds the minimum count, and of no two columns a
   combination is made up by fewer (`influence_few`);
4. where `patients_per_column` is on: the group has so many patients for each column that varies, and of no linear
   combination of the columns one patient makes up nearly all, nor fewer than the minimum count
   (`influence_combinations`). The largest share of a combination is the patient's leverage, h = zᵢᵀ(ZᵀZ)⁻¹zᵢ;
5. a column does not repeat, for all but a few, one that leaves in another analysis of the file (`influence_beside`),
   or that left the site before in whatever campaign (`influence_earlier`).

A column that breaks a rule is left out; of a pair, the one in more such pairs, else the later one. Leaving out more
columns never breaks a rule that held before.

Residual risk: a few patients who alone differ in a combination of columns of several analyses are not looked for; sums
that pass are no differential privacy; the weights of a Cox model far from β = 0 are not these.

Legend: n patients, p columns, q columns that are in every sum (an age, an outcome).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from fedage.common.statistics.influence_beside import nearly_repeats
from fedage.common.statistics.influence_combinations import made_up_by_few
from fedage.common.statistics.influence_earlier import nearly_repeats_earlier
from fedage.common.statistics.influence_few import centred_at_mean, few_make_up, few_make_up_pairs, most_frequent
from fedage.common.statistics.statistic import FloatArray

BoolArray = NDArray[np.bool_]

RULE = "influence"
PATIENTS_PER_COLUMN = "patients-per-column"
"""Names of the rules, as a refusal gives them."""
LARGEST_SHARE = 0.5
PATIENTS_PER_COLUMN_LEAST = 2.0
_LARGEST_LEVERAGE = 0.9
"""Of a combination of columns: far above what one of many normal columns has, and a single patient's is 1."""
_EQUAL = 1e-9


class InfluenceRefused(ValueError):
    """Sums that this site does not release. `.rule` names the rule; the message tells of no patient and no count."""

    def __init__(self, message: str, *, rule: str = RULE) -> None:
        self.rule = rule
        super().__init__(message)


@dataclass(frozen=True, kw_only=True)
class InfluenceRule:
    """What the rule is measured with.

    Parameters
    ----------
    minimum_count
        Fewest patients who differ from a column's most frequent value.
    largest_share
        Largest share of one patient in the absolute contributions to an entry; 1 switches it off.
    patients_per_column
        Fewest patients of a group for each column whose products leave; 0 switches it off.
    """

    minimum_count: int = 1
    largest_share: float = LARGEST_SHARE
    patients_per_column: float = PATIENTS_PER_COLUMN_LEAST


@dataclass(frozen=True, kw_only=True)
class Group:
    """Patients whose sums leave.

    Parameters
    ----------
    of
        Who they are, in words.
    columns
        (n, p); not finite where missing, which adds nothing to a sum.
    always
        (n, q), in every sum.
    names_always
        What those are called.
    products
        Whether products of two columns leave, not only those of a column with itself and with `always`.
    inner
        Whether they are a part of another group here. A column that passes there and fails here costs the site its
        contribution, not all sites the column: at this site there are too few patients for so many groups.
    gradient
        (n, p): contributions to one further entry of each column.
    information
        (n, p, p): contributions to one further entry of each pair.
    beside
        (n, r): columns that leave in other analyses of the file, over these patients; not finite where missing.
    earlier
        (n, r): columns whose sums left this site before; not finite where they did not.
    """

    of: str
    columns: FloatArray
    always: FloatArray
    names_always: tuple[str, ...] = ()
    products: bool = True
    inner: bool = False
    gradient: FloatArray | None = None
    information: FloatArray | None = None
    beside: FloatArray | None = None
    earlier: FloatArray | None = None

    @property
    def n(self) -> int:
        """Patients."""
        return int(self.columns.shape[0])

    def where(self, rows: BoolArray) -> Group:
        """The group of those patients for whom `rows` (n,) is true, with their part of every array."""
        arrays = {name: getattr(self, name) for name in _ARRAYS}
        return replace(self, **{name: array[rows] for name, array in arrays.items() if array is not None})


_ARRAYS = ("columns", "always", "gradient", "information", "beside", "earlier")


def differing(values: FloatArray) -> int:
    """How many patients differ from the most frequent value; all of them where no two are equal.

    >>> differing(np.array([0.0, 0.0, 1.0])), differing(np.array([1.0, 2.0, 3.0])), differing(np.array([4.0, 4.0]))
    (1, 3, 0)
    """
    present = values[np.isfinite(values)]
    if not present.size:
        return 0
    counts = np.unique(present, return_counts=True)[1]
    most = int(counts.max())
    return int(present.size) - (most if most > 1 else 0)


def enough_differ(columns: FloatArray, *, minimum_count: int) -> BoolArray:
    """Which columns (p,) of (n, p) are the same for everybody or differ for at least the minimum count."""
    most = most_frequent(columns)[1]
    counts = np.isfinite(columns).sum(axis=0) - np.where(most > 1, most, 0)
    enough: BoolArray = (counts == 0) | (counts >= minimum_count)
    return enough


def largest_shares(a: FloatArray, b: FloatArray, *, limit: float) -> BoolArray:
    """Which entries (p, q) of Σᵢ aᵢbᵢ have a patient with more than `limit` of Σᵢ |aᵢbᵢ|; a (n, p) and b (n, q).

    Most are settled by max|a| · max|b|, so that a large table costs one product of matrices.
    """
    a, b = np.abs(a), np.abs(b)
    if not a.shape[0]:
        return np.zeros((a.shape[1], b.shape[1]), dtype=np.bool_)
    allowed = limit * (1 + _EQUAL) * (a.T @ b)
    over: BoolArray = np.outer(a.max(axis=0), b.max(axis=0)) > allowed
    for j in np.flatnonzero(over.any(axis=1)):
        which = np.flatnonzero(over[j])
        over[j, which] = (a[:, [j]] * b[:, which]).max(axis=0) > allowed[j, which]
    return over


def passing(groups: Sequence[Group], rule: InfluenceRule) -> BoolArray:
    """Which columns (p,) may be in this site's sums, by all rules in all groups.

    A column that fails only because a group has fewer than twice the minimum count could not pass with two values at
    all: then it is the site that is too small for the sums, not the column that is too rare.

    Raises
    ------
    InfluenceRefused
        If the site can release nothing of the kind.
    """
    if not groups:
        raise ValueError("there must be at least one group of patients")
    ok = np.ones(groups[0].columns.shape[1], dtype=np.bool_)
    for group in sorted(groups, key=lambda each: each.inner):
        before = ok
        _require_always(group, rule)
        ok = ok & _alone(group, rule)
        if not np.array_equal(ok, before) and (group.inner or group.n < 2 * rule.minimum_count):
            raise InfluenceRefused(_too_few(group))
        if group.products:
            ok = _without_failing_pairs(ok, _failing_pairs(group, rule))
            if rule.patients_per_column > 0:
                ok = _without_combinations(group, ok, rule)
        if not np.array_equal(ok, before) and group.inner:
            raise InfluenceRefused(_too_few(group))
    return ok


def columns_passing(columns: FloatArray, rule: InfluenceRule) -> BoolArray:
    """Which columns (p,) of (n, p) have sums Σz of which no few patients make up too much, each by itself."""
    return _alone(Group(of="patients", columns=columns, always=np.empty((len(columns), 0))), rule)


def _too_few(group: Group) -> str:
    return (
        f"{group.of} are too few for the columns whose sums would leave; "
        "fewer folds, strata, table times or covariates need fewer patients"
    )


def all_pass(groups: Sequence[Group], rule: InfluenceRule) -> bool:
    """Whether every column passes in every group."""
    try:
        return bool(passing(groups, rule).all())
    except InfluenceRefused:
        return False


def require_sums(groups: Sequence[Group], rule: InfluenceRule) -> None:
    """Refuse sums of products of columns, all of them `always`, that cannot do without one of these.

    Besides each column the products of pairs are looked at, and every linear combination of the columns, as an error is
    one of a predicted and a chronological age: of none may a patient make up nearly all (the leverage of rule 4).

    Raises
    ------
    InfluenceRefused
        With the column, or the pair.
    """
    for group in groups:
        _require_always(group, rule)
        centred = centred_at_mean(group.always)
        pairs = np.argwhere(np.triu(largest_shares(centred, centred, limit=rule.largest_share), 1))
        if pairs.size:
            first, second = (group.names_always[column] for column in pairs[0])
            raise InfluenceRefused(f"too few of {group.of} make up too much of the sum of {first} times {second}")
        size = np.sqrt((centred * centred).sum(axis=0))
        z = centred[:, size > 0] / size[size > 0]
        if rule.largest_share < 1 and group.n > z.shape[1] and z.size and _leverage(z)[0].max() > _allowed(group.n):
            raise InfluenceRefused(
                f"one of {group.of} makes up too much of {' and '.join(group.names_always)} together"
            )


def dominated(values: FloatArray, rule: InfluenceRule) -> bool:
    """Whether one of the patients has too large a share in the sum of squares of values (n,) about their mean."""
    centred = centred_at_mean(np.asarray(values, dtype=np.float64)[:, None])
    return bool(values.size and largest_shares(centred, centred, limit=rule.largest_share)[0, 0])


def _leverage(z: FloatArray) -> tuple[FloatArray, BoolArray, FloatArray, FloatArray, FloatArray]:
    """Leverage (n,) of each patient in columns (n, p), which singular values count, and the decomposition."""
    left, singular, right = np.linalg.svd(z, full_matrices=False)
    kept = singular > singular[0] * max(z.shape) * np.finfo(np.float64).eps
    return (left[:, kept] ** 2).sum(axis=1), kept, left, singular, right


def _allowed(n: int) -> float:
    return _LARGEST_LEVERAGE * (1 - 1 / n)


def _require_always(group: Group, rule: InfluenceRule) -> None:
    centred = centred_at_mean(group.always)
    enough = enough_differ(group.always, minimum_count=rule.minimum_count)
    enough &= ~few_make_up(centred, minimum_count=rule.minimum_count)
    dominated = np.diagonal(largest_shares(centred, centred, limit=rule.largest_share))
    for name, fails in zip(group.names_always, ~enough | dominated, strict=True):
        if fails:
            raise InfluenceRefused(f"too few of {group.of} make up too much of the sums of {name}")


def _alone(group: Group, rule: InfluenceRule) -> BoolArray:
    """Columns (p,) that pass by themselves and beside what is in every sum."""
    ok = enough_differ(group.columns, minimum_count=rule.minimum_count)
    centred, always = centred_at_mean(group.columns), centred_at_mean(group.always)
    ok &= ~few_make_up(centred, minimum_count=rule.minimum_count)
    ok &= ~few_make_up_pairs(centred, always, minimum_count=rule.minimum_count).any(axis=1)
    squares = centred * centred
    ok &= ~(squares.max(axis=0, initial=0.0) > rule.largest_share * (1 + _EQUAL) * squares.sum(axis=0))
    ok &= ~largest_shares(centred, always, limit=rule.largest_share).any(axis=1)
    ok &= ~_small_cells(group.columns, group.always, minimum_count=rule.minimum_count).any(axis=1)
    if group.gradient is not None:
        ones = np.ones((group.n, 1))
        ok &= ~largest_shares(group.gradient, ones, limit=rule.largest_share)[:, 0]
    if group.beside is not None:
        ok &= ~nearly_repeats(group.columns, group.beside, minimum_count=rule.minimum_count)
    if group.earlier is not None:
        ok &= ~nearly_repeats_earlier(group.columns, group.earlier, minimum_count=rule.minimum_count)
    return ok


def _failing_pairs(group: Group, rule: InfluenceRule) -> BoolArray:
    """Pairs (p, p) of columns that do not go together."""
    centred = centred_at_mean(group.columns)
    pairs = largest_shares(centred, centred, limit=rule.largest_share)
    pairs |= _small_cells(group.columns, group.columns, minimum_count=rule.minimum_count)
    pairs |= few_make_up_pairs(centred, centred, minimum_count=rule.minimum_count)
    if group.information is not None:
        p = group.columns.shape[1]
        flat, ones = group.information.reshape(group.n, p * p), np.ones((group.n, 1))
        pairs |= largest_shares(flat, ones, limit=rule.largest_share)[:, 0].reshape(p, p)
    return pairs


def _small_cells(a: FloatArray, b: FloatArray, *, minimum_count: int) -> BoolArray:
    """Which pairs (p, q) of columns of two values have a small cell in the table of both.

    A column beside itself has the cells of its own two values, and empty ones.
    """
    small = np.zeros((a.shape[1], b.shape[1]), dtype=np.bool_)
    two_a, high_a, low_a = _two_values(a)
    two_b, high_b, low_b = _two_values(b)
    if not two_a.size or not two_b.size:
        return small
    are_small = np.zeros((two_a.size, two_b.size), dtype=np.bool_)
    for one in (high_a, low_a):
        for other in (high_b, low_b):
            cells = np.rint(one.T @ other)
            are_small |= (cells > 0) & (cells < minimum_count)
    small[np.ix_(two_a, two_b)] = are_small
    return small


def _two_values(columns: FloatArray) -> tuple[NDArray[np.intp], FloatArray, FloatArray]:
    """Which columns have two values, and who has the higher and the lower one, (n, those) of 0 and 1."""
    known = np.isfinite(columns)
    low = np.where(known, columns, np.inf).min(axis=0, initial=np.inf)
    high = np.where(known, columns, -np.inf).max(axis=0, initial=-np.inf)
    is_low, is_high = columns == low, columns == high
    two = np.flatnonzero((low < high) & (is_low | is_high | ~known).all(axis=0))
    return two, is_high[:, two].astype(np.float64), is_low[:, two].astype(np.float64)


def _without_failing_pairs(ok: BoolArray, pairs: BoolArray) -> BoolArray:
    """Leave out columns until no failing pair is left: the one in most pairs first, of equal ones the last."""
    ok = ok.copy()
    failing = pairs | pairs.T
    while True:
        counts = (failing & ok[:, None] & ok[None, :]).sum(axis=0)
        if not counts.any():
            return ok
        ok[ok.size - 1 - int(np.argmax(counts[::-1]))] = False


def _without_combinations(group: Group, ok: BoolArray, rule: InfluenceRule) -> BoolArray:
    """Leave out columns until no patient makes up a combination of the others, if there are patients enough.

    Raises
    ------
    InfluenceRefused
        Rule `patients-per-column`.
    """
    centred = centred_at_mean(group.columns)
    size = np.sqrt((centred * centred).sum(axis=0))
    ok = ok & True
    varying = ok & (size > 0)
    least = rule.patients_per_column
    if group.n < least * np.count_nonzero(varying):
        raise InfluenceRefused(
            f"{group.of} are fewer than {least:g} for each column whose products would leave; name fewer columns, or "
            "let the site's policy ask for fewer patients (patients_per_column in [disclosure] of policy.toml, and "
            "privacy.patients_per_column in the campaign file)",
            rule=PATIENTS_PER_COLUMN,
        )
    while varying.any():
        which = np.flatnonzero(varying)
        z = centred[:, which] / size[which]
        leverage, kept, left, singular, right = _leverage(z)
        who = int(np.argmax(leverage))
        if leverage[who] > _allowed(group.n):
            weight = np.abs((left[who, kept] / singular[kept]) @ right[kept])
        elif (of_few := made_up_by_few(z, minimum_count=rule.minimum_count)) is not None:
            weight = of_few
        else:
            return ok
        largest = weight >= weight.max() * (1 - 1e-6)
        worst = which[int(np.flatnonzero(largest)[-1])]
        varying[worst] = ok[worst] = False
    return ok
