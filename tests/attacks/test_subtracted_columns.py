"""Attack on two campaigns of one data set: a column of each, equal, or following one from the other, but for a few.

Each passes by itself and in its file. Through real messages to a hospital with a table: without the account of the
columns that left before, the sums subtracted give one patient's age; with it the later column leaves in no sum, or the
analysis that cannot do without it is withheld.
"""

from __future__ import annotations

import shutil
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fedage.client.cli.campaign_text import similar_columns_text
from fedage.client.consent.accounts.released_columns import RELEASED_FILE
from fedage.client.site.home import init_site
from fedage.common.analyses.agreement import COLUMNS, Agreed
from fedage.common.analyses.columns_read import ReadsColumns
from fedage.common.analyses.plan import registered
from fedage.common.protocol.messages import ANALYSE, join_iterates
from fedage.common.statistics.influence import RULE
from fedage.common.statistics.statistic import FloatArray
from fedage.server.superlink.home import CoordinatorHome, init_home
from tests.attacks.asked_of_a_site import blocks
from tests.attacks.two_campaigns import (
    COX,
    COX_FILE,
    CURVES,
    GROUP,
    GROUPS,
    HEAD,
    KINDS,
    MINIMUM,
    MODEL,
    NUMBERS,
    PREDICTED,
    PREPARE,
    RIDGE,
    SURVIVAL,
    TARGET,
    Asking,
    B,
    campaign,
    changed,
    table,
    with_second,
)
from tests.client.hospital import Hospital
from tests.of_estimators import preparation


@pytest.fixture(scope="module")
def coordinator(tmp_path_factory: pytest.TempPathFactory) -> CoordinatorHome:
    return init_home(tmp_path_factory.mktemp("c"), hosts=("localhost",))


@pytest.fixture(scope="module")
def empty_home(tmp_path_factory: pytest.TempPathFactory, coordinator: CoordinatorHome) -> Path:
    home = init_site(
        tmp_path_factory.mktemp("site") / "home",
        name="north",
        coordinator="localhost:8443",
        ca_certificate=coordinator.ca_certificate,
        coordinator_public_key=coordinator.signing_public_key,
    )
    (home.root / "policy.toml").write_text(f"[disclosure]\nminimum_count = {MINIMUM}\n")
    return home.root


@pytest.fixture
def asking(tmp_path: Path, coordinator: CoordinatorHome, empty_home: Path) -> Asking:
    home = tmp_path / "home"
    shutil.copytree(empty_home, home)
    with (home / "site.toml").open("a") as settings:
        settings.write(f'[table]\npath = "{tmp_path / "table.csv"}"\nid = "who"\n')
    return Asking(tmp_path, coordinator, Hospital(home, coordinator.signing_key()))


def must_be_in_no_sum(asking: Asking, step: str, column: str, *, left_out: bool) -> None:
    """The column leaves in no answer of the step, whether the coordinator listens to the site or not."""
    asking.refusals.clear()
    analysis = asking.analysis(step)
    if left_out:
        assert isinstance(analysis, Agreed)
        fails = asking.ask(step, {})
        if fails is not None:
            names = analysis.analysis.reducible
            assert [name for name, failing in zip(names, fails.vector, strict=True) if failing > 0.5] == [column]
        for told in asking.everything(step)[1:]:
            widths = {len(told[name]) for name in ("x", "gradient") if name in blocks(told.layout)}
            assert widths <= {1}
            assert not [name for name in blocks(told.layout) if name.endswith(f" {column}") or f" {column} " in name]
        asking.refusals.clear()
        names = analysis.analysis.reducible
        assert asking.ask(step, {**analysis.analysis.first(), COLUMNS: np.ones(len(names))}) is None
    else:
        assert asking.everything(step) == []
    assert asking.refusals
    for refusal in asking.refusals:
        assert refusal["rule"] == RULE
        assert "MRN" not in refusal["detail"]
        assert not any(character.isdigit() for character in refusal["detail"])


@pytest.mark.parametrize("name", KINDS)
def test_a_column_that_nearly_repeats_one_of_an_earlier_campaign_is_in_no_sum(asking: Asking, name: str) -> None:
    kind, whole = KINDS[name], table()
    seconds = {f"second{letter}": change for letter, change in zip("abcdef", kind.changes.values(), strict=False)}
    values = {column: change(whole[kind.column].to_numpy(copy=True)) for column, change in seconds.items()}
    asking.index(whole.assign(**values))
    text, step, changes = kind.first
    asking.approve(campaign(text, "first", **changes))
    assert asking.everything(step), asking.refusals
    text, step, changes = kind.second
    for second in seconds:
        asking.approve(campaign(text, second, **_naming(second, changes)))
        column = "age_years" if "AGE" in changes else f"feature:{second}" if step == PREPARE else second
        must_be_in_no_sum(asking, step, column, left_out=kind.left_out)


def _naming(second: str, changes: dict[str, str]) -> dict[str, str]:
    return {key: value.replace("second", second) for key, value in changes.items()}


@pytest.mark.parametrize("keeps_account", [True, False])
@pytest.mark.parametrize("change", ["one patient", "one patient by a little", "another unit but for one"])
def test_the_sums_of_two_campaigns_give_an_age_only_without_the_account(
    asking: Asking, change: str, keeps_account: bool
) -> None:
    second = changed(1, slope=365.25) if change == "another unit but for one" else NUMBERS[change]
    slope = 365.25 if change == "another unit but for one" else 1.0
    asking.index(with_second("a", second))
    found: list[tuple[float, float, float, float]] = []
    for name, column in (("first", "a"), ("second", "second")):
        text = HEAD + PREDICTED + SURVIVAL + MODEL + GROUPS
        asking.approve(campaign(text, name, COVARIATES=f'"age_years", "{column}"'))
        model, groups = asking.everything(COX), asking.everything(GROUP)
        assert len(model) > 1
        assert len(groups) == 2
        product = next((block for block in blocks(groups[1].layout) if f"age_years · 2 {column}" in block), None)
        if product is None or model[1]["x"].size < 2:
            assert keeps_account
            return
        found.append((float(model[1]["n"]), *model[1]["x"], float(groups[1][product])))
        if not keeps_account:
            asking.account.unlink()
    assert not keeps_account
    (n, ages, of_a, with_a), (_, _, of_b, with_b) = found
    assert ages / n + (with_b - slope * with_a) / (of_b - slope * of_a) == pytest.approx(82.5, abs=1e-3)


@pytest.mark.parametrize("of", ["a", "time", "event", "age"])
def test_a_column_exported_again_with_one_value_corrected_is_withheld(asking: Asking, of: str) -> None:
    before = table()
    asking.index(before)
    asking.approve(campaign(COX_FILE, "first"))
    assert len(asking.everything(COX)) > 2
    values = before[of].to_numpy(copy=True)
    values[TARGET] = 1 - values[TARGET] if of == "event" else values[TARGET] + 1.0
    asking.index(before.assign(**{of: values}))
    asking.approve(campaign(COX_FILE, "second"))
    asking.hospital.site.rules.close()
    asking.hospital.start()
    must = {"a": "a", "age": "age_years"}
    must_be_in_no_sum(asking, COX, must.get(of, of), left_out=of in must)


def test_another_coordinator_of_the_same_hospital_is_refused_too(asking: Asking, tmp_path: Path) -> None:
    asking.index(with_second("a", changed(1)))
    asking.approve(campaign(COX_FILE, "first"))
    assert len(asking.everything(COX)) > 2
    other = init_home(tmp_path / "other", hosts=("localhost",))
    shutil.copy(other.signing_public_key, asking.hospital.home / "coordinator.pub")
    asking.hospital = Hospital(asking.hospital.home, other.signing_key())
    asking.approve(campaign(COX_FILE, "second", **B))
    must_be_in_no_sum(asking, COX, "second", left_out=True)


def test_a_data_set_of_another_name_does_not_hide_it(asking: Asking) -> None:
    asking.index(with_second("a", changed(1)))
    asking.approve(campaign(COX_FILE, "first"))
    assert len(asking.everything(COX)) > 2
    asking.hospital.policy(f"[disclosure]\nminimum_count = {MINIMUM}\n[data_sets.whole]\nage_min_years = 0\n")
    asking.approve(campaign(COX_FILE, "second", **B))
    must_be_in_no_sum(asking, COX, "second", left_out=True)


def test_every_analysis_says_by_which_columns_it_makes_its_sums() -> None:
    text = HEAD + PREDICTED + SURVIVAL + CURVES + MODEL.replace('"m"', '"tables"') + "by_site = false\n" + GROUPS
    files = [campaign(text, "all"), campaign(HEAD + RIDGE + SURVIVAL + CURVES + GROUPS, "made")]
    seen = set()
    for file in files:
        first = preparation(file, ("a", "other"))
        for analysis in (*registered(file).values(), *(() if first is None else (first,))):
            assert isinstance(analysis, ReadsColumns), analysis.name
            seen.add(type(getattr(analysis, "analysis", analysis)).__name__)
    assert len(seen) >= 10


HONEST = {
    "the same column": lambda a: a,
    "the same under another unit": lambda a: a * 365.25,
    "another measure": lambda a: np.random.default_rng(1).normal(0, 1, a.size),
    "a measure that goes with it": lambda a: a + np.random.default_rng(1).normal(0, 2, a.size),
    "as many differ as have to": changed(MINIMUM),
    "another sex of half": lambda a: (np.random.default_rng(2).random(a.size) < 0.5).astype(float),
}


@pytest.mark.parametrize("name", HONEST)
def test_honest_columns_of_another_campaign_stay(asking: Asking, name: str) -> None:
    asking.index(with_second("a", HONEST[name]))
    asking.approve(campaign(COX_FILE, "first"))
    first = asking.everything(COX)
    asking.approve(campaign(COX_FILE, "second", **B))
    second = asking.everything(COX)
    assert [len(told["x"]) for told in second[1:2]] == [2]
    assert len(second) > 2
    asking.approve(campaign(COX_FILE, "first"))
    again = asking.everything(COX, run="r2")
    assert [told.vector.tolist() for told in again] == [told.vector.tolist() for told in first]


def test_the_same_campaign_is_answered_after_patients_have_come(asking: Asking) -> None:
    """By a later campaign of the same columns, with sums over those who were there and 20 more."""
    whole = table()
    asking.index(whole.iloc[:-20])
    asking.approve(campaign(COX_FILE, "first"))
    assert len(asking.everything(COX)) > 2
    asking.index(whole)
    asking.approve(campaign(COX_FILE, "second"))
    assert [len(told["x"]) for told in asking.everything(COX)[1:2]] == [2]
    corrected = whole.assign(a=changed(1)(whole["a"].to_numpy(copy=True)))
    asking.index(corrected)
    asking.approve(campaign(COX_FILE, "third"))
    must_be_in_no_sum(asking, COX, "a", left_out=True)


def test_an_administrator_may_let_it_through(asking: Asking) -> None:
    asking.index(with_second("a", changed(1)))
    asking.approve(campaign(COX_FILE, "first"))
    assert len(asking.everything(COX)) > 2
    asking.hospital.campaign = campaign(COX_FILE, "second", **B)
    asking.hospital.site.rules.approve(asking.hospital.campaign, similar_columns=True)
    assert [len(told["x"]) for told in asking.everything(COX)[1:2]] == [2]


def missing(count: int, *, slope: float = 1.0) -> Callable[[FloatArray], FloatArray]:
    def change(values: FloatArray) -> FloatArray:
        values = slope * values
        values[TARGET : TARGET + count] = np.nan
        return values

    return change


@pytest.mark.parametrize(
    ("earlier", "later"),
    [(missing(0), missing(1)), (missing(1), missing(0)), (missing(0), missing(9, slope=0.1)), (missing(2), missing(3))],
    ids=["one is missing later", "one is filled in", "nine, in another unit", "two and three"],
)
def test_features_that_few_miss_in_one_campaign_alone_are_not_in_both(
    earlier: Callable[[FloatArray], FloatArray], later: Callable[[FloatArray], FloatArray], asking: Asking
) -> None:
    """A mean stands in for who misses a value: Σ feature · age of the two campaigns differ by that patient's."""
    whole = table()
    values = whole["a"].to_numpy(copy=True)
    asking.index(whole.assign(a=earlier(values), second=later(values)))
    asking.approve(campaign(HEAD + RIDGE, "first"))
    assert len(asking.everything(PREPARE)) > 2
    asking.approve(campaign(HEAD + RIDGE, "second", FEATURES='"other", "second"'))
    must_be_in_no_sum(asking, PREPARE, "feature:second", left_out=True)


@pytest.mark.parametrize("again", ["approved again", "revoked and approved", "revoked, corrected and approved"])
def test_what_an_administrator_lets_through_ends_with_the_approval(again: str, asking: Asking) -> None:
    """A later approval without the option is of columns that nobody has looked at."""
    asking.index(with_second("a", changed(1)))
    asking.approve(campaign(COX_FILE, "first"))
    assert len(asking.everything(COX)) > 2
    later, rules = campaign(COX_FILE, "second", **B), asking.hospital.site.rules
    asking.hospital.campaign = later
    rules.approve(later, similar_columns=True)
    if again.startswith("revoked"):
        rules.revoke(later.digest)
    if "corrected" in again:
        asking.index(with_second("a", changed(2)))
    rules.approve(later, few_changes=True)
    must_be_in_no_sum(asking, COX, "second", left_out=True)


def test_two_campaigns_asked_at_once_do_not_both_get_their_column(asking: Asking) -> None:
    """Both were told yes before either has its sums."""
    asking.index(with_second("a", changed(1)))
    files = [campaign(COX_FILE, "first"), campaign(COX_FILE, "second", **B)]
    for each in files:
        asking.approve(each)
        agreed = asking.ask(COX, {})
        assert agreed is not None
        assert not agreed.vector.any()
    messages = []
    for each in files:
        asking.hospital.campaign = each
        messages.append(
            asking.hospital.message(asking.hospital.request(ANALYSE), join_iterates({COX: {COLUMNS: np.ones(2)}}))
        )
    told: list[bool] = []
    threads = [
        threading.Thread(target=lambda message=each: told.append(COX in asking.hospital.deliver(message)[1]))
        for each in messages
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(told) == [False, True]


def test_the_account_names_nobody_and_is_the_agent_s_alone(asking: Asking) -> None:
    asking.index(table())
    asking.approve(campaign(COX_FILE, "first"))
    assert len(asking.everything(COX)) > 2
    assert asking.account.stat().st_mode & 0o777 == 0o600
    for path in asking.account.parent.glob(f"{RELEASED_FILE}*"):
        assert b"MRN-" not in path.read_bytes()


def _overwritten(path: Path) -> None:
    path.write_bytes(b"no database" * 1000)


def _other_tables(path: Path) -> None:
    path.unlink()
    with sqlite3.connect(path) as file:
        file.execute("create table columns (id integer)")


def _spoilt_values(path: Path) -> None:
    with sqlite3.connect(path) as file:
        file.execute("update columns set column_values = x'00'")


@pytest.mark.parametrize("spoil", [_overwritten, _other_tables, _spoilt_values])
def test_nothing_leaves_without_the_account(asking: Asking, spoil: Callable[[Path], None]) -> None:
    asking.index(with_second("a", changed(1)))
    asking.approve(campaign(COX_FILE, "first"))
    assert len(asking.everything(COX)) > 2
    for beside in asking.account.parent.glob(f"{RELEASED_FILE}-*"):
        beside.unlink()
    spoil(asking.account)
    asking.approve(campaign(COX_FILE, "second", **B))
    asking.refusals.clear()
    assert asking.everything(COX) == []
    assert [refusal["rule"] for refusal in asking.refusals] == ["store-unavailable"]


def test_columns_that_only_one_patient_tells_apart_are_named_before_an_approval(asking: Asking) -> None:
    asking.index(with_second("a", changed(1)))
    asking.approve(campaign(COX_FILE, "first"))
    rules = asking.hospital.site.rules
    later = campaign(COX_FILE, "second", **B)
    assert rules.similar_columns(later) == {}
    assert len(asking.everything(COX)) > 2
    assert rules.similar_columns(later) == {"second": ("a", asking.hospital.campaign.digest)}
    assert rules.similar_columns(asking.hospital.campaign) == {}
    (words,) = similar_columns_text(rules, later)
    assert words.startswith("Column second differs for a few patients only from column a of campaign ")
    assert list(similar_columns_text(rules, asking.hospital.campaign)) == []
