"""Pairs of campaigns of one data set that read nearly the same column, and a coordinator who asks by both."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from fedage.client.cli.index import index_site
from fedage.client.consent.accounts.released_columns import RELEASED_FILE
from fedage.common.analyses.base import Again, Analysis, Done, Following
from fedage.common.analyses.plan import registered
from fedage.common.campaign import Campaign
from fedage.common.campaign_file import parse_campaign
from fedage.common.protocol.messages import ANALYSE, join_iterates
from fedage.common.statistics.statistic import FloatArray, Statistic
from fedage.server.superlink.home import CoordinatorHome
from tests.client.hospital import Hospital
from tests.of_estimators import preparation

PATIENTS, TARGET, MINIMUM = 300, 40, 10


HEAD = """
[campaign]
name = "NAME"
purpose = "Subtract the sums of two campaigns"
seed = 1
[table]
id = "who"
age = "AGE"
"""


PREDICTED = 'predicted = "PREDICTED"\n'


SURVIVAL = """
[survival]
time = "TIME"
event = "EVENT"
strata = [STRATA]
table_times_years = [2, 4, 6]
"""


MODEL = '[[survival.models]]\nname = "m"\ncovariates = [COVARIATES]\n'


TABLES = MODEL + "by_site = false\n"


CURVES = 'curves_by = "CURVES"\n' + MODEL


GROUPS = '\n[groups]\ncolumn = "GROUP"\nequals = 1\nreference = 0\ncovariates = [COVARIATES]\n'


RIDGE = """
[estimator]
name = "table-ridge"
[estimator.options]
features = [FEATURES]
penalty = 2.0
[validation]
folds = 3
"""


COX, GRID, GROUP = "cox:m", "table-grid", "groups:gap"


PREPARE, TEST = "table-preparation", "evaluation:test"


USUAL = {
    "AGE": "age",
    "PREDICTED": "predicted",
    "TIME": "time",
    "EVENT": "event",
    "STRATA": "",
    "COVARIATES": '"age_years", "a"',
    "GROUP": "ill",
    "FEATURES": '"a", "other"',
    "CURVES": "ill",
}


def campaign(text: str, name: str, **changes: str) -> Campaign:
    for key, value in {**USUAL, **changes, "NAME": name}.items():
        text = text.replace(key, value)
    return parse_campaign(text)


def table(**changes: FloatArray) -> pd.DataFrame:
    rng = np.random.default_rng(3)
    age, ill = rng.uniform(40, 85, PATIENTS), rng.integers(0, 2, PATIENTS).astype(float)
    time, until = rng.exponential(6.0, PATIENTS), rng.uniform(0.5, 10, PATIENTS)
    age[TARGET], time[TARGET], until[TARGET] = 82.5, 1.7, 9.0
    columns = {
        "age": age,
        "predicted": age + rng.normal(0, 4, PATIENTS) + ill,
        "ill": ill,
        "male": (np.arange(PATIENTS) % 2).astype(float),
        "a": rng.normal(50, 10, PATIENTS),
        "other": rng.normal(0, 1, PATIENTS),
        "time": np.minimum(time, until),
        "event": (time <= until).astype(float),
    }
    return pd.DataFrame({"who": [f"MRN-{number:05d}" for number in range(PATIENTS)], **columns, **changes})


def with_second(column: str, second: Callable[[FloatArray], FloatArray]) -> pd.DataFrame:
    """The table with a column `second` made of another one."""
    whole = table()
    return whole.assign(second=second(whole[column].to_numpy(copy=True)))


def changed(count: int, by: float = 3.0, *, slope: float = 1.0) -> Callable[[FloatArray], FloatArray]:
    def change(values: FloatArray) -> FloatArray:
        values = slope * values
        values[TARGET : TARGET + count] += by
        return values

    return change


def flipped(count: int, *, turned: bool = False) -> Callable[[FloatArray], FloatArray]:
    def change(values: FloatArray) -> FloatArray:
        values[TARGET : TARGET + count] = 1 - values[TARGET : TARGET + count]
        return 1 - values if turned else values

    return change


NUMBERS = {
    "one patient": changed(1),
    "one patient by a little": changed(1, 0.01),
    "three patients": changed(3, 7.0),
    "all but one too few": changed(MINIMUM - 1),
    "another unit but for two": changed(2, slope=365.25),
    "turned but for one": changed(1, 500.0, slope=-2.0),
}


YES_OR_NO = {
    "one patient": flipped(1),
    "four patients": flipped(4),
    "all but one too few": flipped(MINIMUM - 1),
    "turned but for one": flipped(1, turned=True),
}


TIMES = {
    name: NUMBERS[name] for name in ("one patient", "one patient by a little", "three patients", "all but one too few")
}


EVENTS = {name: YES_OR_NO[name] for name in ("one patient", "four patients", "all but one too few")}


@dataclass(frozen=True, kw_only=True)
class Kind:
    """Two campaigns: the second asks of `second` what the first asks of `column`."""

    column: str
    first: tuple[str, str, dict[str, str]]
    second: tuple[str, str, dict[str, str]]
    changes: dict[str, Callable[[FloatArray], FloatArray]] = field(default_factory=lambda: NUMBERS)
    left_out: bool = True
    """Whether the second analysis can do without the column."""


B = {"COVARIATES": '"age_years", "second"'}


PLAIN = {"COVARIATES": '"age_years"'}


AGES = {"COVARIATES": '"other", "age_years"'}


COX_FILE, TABLES_FILE, GROUP_FILE = HEAD + SURVIVAL + MODEL, HEAD + SURVIVAL + TABLES, HEAD + PREDICTED + GROUPS


CURVES_FILE = HEAD + SURVIVAL + CURVES


KINDS = {
    "covariate, then covariate": Kind(column="a", first=(COX_FILE, COX, {}), second=(COX_FILE, COX, B)),
    "covariate, then one of groups": Kind(column="a", first=(COX_FILE, COX, {}), second=(GROUP_FILE, GROUP, B)),
    "one of groups, then covariate": Kind(column="a", first=(GROUP_FILE, GROUP, {}), second=(COX_FILE, COX, B)),
    "covariate, then feature": Kind(
        column="a",
        first=(COX_FILE, COX, {}),
        second=(HEAD + RIDGE, PREPARE, {"FEATURES": '"other", "second"'}),
    ),
    "feature, then covariate": Kind(column="a", first=(HEAD + RIDGE, PREPARE, {}), second=(COX_FILE, COX, B)),
    "feature, then feature": Kind(
        column="a",
        first=(HEAD + RIDGE, PREPARE, {}),
        second=(HEAD + RIDGE, PREPARE, {"FEATURES": '"other", "second"'}),
    ),
    "groups, then covariate": Kind(
        column="ill", first=(GROUP_FILE, GROUP, PLAIN), second=(COX_FILE, COX, B), changes=YES_OR_NO
    ),
    "strata, then covariate": Kind(
        column="male",
        first=(COX_FILE, COX, {**PLAIN, "STRATA": '"male"'}),
        second=(COX_FILE, COX, B),
        changes=YES_OR_NO,
    ),
    "event, then covariate": Kind(
        column="event", first=(COX_FILE, COX, PLAIN), second=(COX_FILE, COX, {**B, "EVENT": "ill"}), changes=YES_OR_NO
    ),
    "strata, then strata": Kind(
        column="male",
        first=(COX_FILE, COX, {**PLAIN, "STRATA": '"male"'}),
        second=(COX_FILE, COX, {**PLAIN, "STRATA": '"second"'}),
        changes=EVENTS,
        left_out=False,
    ),
    "covariate, then strata": Kind(
        column="male",
        first=(COX_FILE, COX, {"COVARIATES": '"age_years", "male"'}),
        second=(COX_FILE, COX, {**PLAIN, "STRATA": '"second"'}),
        changes=EVENTS,
        left_out=False,
    ),
    "time, then time": Kind(
        column="time",
        first=(COX_FILE, COX, PLAIN),
        second=(COX_FILE, COX, {**PLAIN, "TIME": "second"}),
        changes=TIMES,
        left_out=False,
    ),
    "event, then event": Kind(
        column="event",
        first=(COX_FILE, COX, PLAIN),
        second=(COX_FILE, COX, {**PLAIN, "EVENT": "second"}),
        changes=EVENTS,
        left_out=False,
    ),
    "time of a model, then of tables": Kind(
        column="time",
        first=(COX_FILE, COX, PLAIN),
        second=(CURVES_FILE, GRID, {**PLAIN, "TIME": "second"}),
        changes=TIMES,
        left_out=False,
    ),
    "age, then age": Kind(
        column="age",
        first=(COX_FILE, COX, AGES),
        second=(COX_FILE, COX, {**AGES, "AGE": "second"}),
        changes=TIMES,
    ),
    "predicted ages, then others": Kind(
        column="predicted",
        first=(HEAD + PREDICTED, TEST, {}),
        second=(HEAD + PREDICTED, TEST, {"PREDICTED": "second"}),
        changes=TIMES,
        left_out=False,
    ),
    "ages that are evaluated, then others": Kind(
        column="age",
        first=(HEAD + PREDICTED, TEST, {}),
        second=(HEAD + PREDICTED, TEST, {"AGE": "second"}),
        changes=TIMES,
        left_out=False,
    ),
}


@dataclass
class Asking:
    """A hospital with a table, and a coordinator who asks it by one campaign after the other."""

    folder: Path
    coordinator: CoordinatorHome
    hospital: Hospital
    refusals: list[dict[str, str]] = field(default_factory=list)

    @property
    def account(self) -> Path:
        return self.hospital.home / "accounts" / RELEASED_FILE

    def index(self, frame: pd.DataFrame) -> None:
        frame.to_csv(self.folder / "table.csv", index=False)
        index_site(self.hospital.home)
        self.hospital.start()

    def approve(self, campaign: Campaign) -> None:
        self.hospital.campaign = campaign
        self.hospital.site.rules.approve(campaign)

    def analysis(self, step: str) -> Analysis:
        found = self.hospital.site.cohort(self.hospital.campaign)
        first = preparation(self.hospital.campaign, found.features)
        return {**registered(self.hospital.campaign), **({} if first is None else {first.name: first})}[step]

    def ask(self, step: str, iterate: dict[str, FloatArray], *, run: str = "r1") -> Statistic | None:
        reply, sums = self.hospital.send(self.hospital.request(ANALYSE, run=run), join_iterates({step: iterate}))
        assert reply.status == "ok", reply.reason
        if step not in sums:
            self.refusals.append(reply.info["withheld"][step])
            return None
        return Statistic(layout=self.analysis(step).layout(iterate), vector=sums[step], smallest=None)

    def everything(self, step: str, *, run: str = "r1", exchanges: int = 12) -> list[Statistic]:
        """All that leaves for a step when it is asked as an honest coordinator does."""
        analysis, got = self.analysis(step), []
        if isinstance(analysis, Following):
            before = self.everything(analysis.preceding.name, run=run, exchanges=40)
            outcome = self._last
            if not before or not isinstance(outcome, Done):
                return []
            iterate = dict(analysis.begin(outcome.result))
        else:
            iterate = dict(analysis.first())
        for _ in range(exchanges):
            statistic = self.ask(step, iterate, run=run)
            if statistic is None:
                return got
            got.append(statistic)
            self._last = analysis.combine(statistic, iterate)
            if not isinstance(self._last, Again):
                return got
            iterate = dict(self._last.iterate)
        return got
