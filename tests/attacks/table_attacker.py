"""A coordinator that chooses its models: what it sends a site with a table, through the real handlers.

Legend: n training patients, p features, z a feature in standard deviations, k hidden units.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedage.client.cohort.selection.parts import with_parts
from fedage.common.analyses.agreement import COLUMNS, Agreed
from fedage.common.campaign import Campaign
from fedage.common.campaign_file import parse_campaign
from fedage.common.estimators.configure import configured
from fedage.common.estimators.table_mlp import TableMLP
from fedage.common.protocol.basis import PreparedSums
from fedage.common.protocol.messages import (
    TRAIN,
    Reply,
    Request,
    join_iterates,
    join_model,
    model_of,
)
from fedage.server.sites.flower_records import request_content
from tests.machinery import InProcessGrid, MemorySite, answer_of, table_site
from tests.of_estimators import first_model, join_preparation, preparation

VALIDATION = "evaluation:validation"
FEATURES = 12
ROUNDS = 60
FILE = """
[campaign]
name = "table-attack"
purpose = "Have a site answer models that were made to single patients out"
seed = 3
[table]
age = "age"
[estimator]
name = "table-mlp"
[estimator.options]
features = ["*"]
penalty = 10.0
hidden = [64]
age_scale = "linear"
[training]
rounds = {rounds}
max_step_norm = {step_norm}
max_path_norm = {path_norm}
batch_size = 4096
optimiser = "sgd"
learning_rate = 0.2
quorum = 1
[validation.fractions]
train = 0.4
validation = 0.4
test = 0.2
[privacy]
minimum_count = 10
"""
"""With bounds as large as a file may have them."""
_runs = itertools.count(1)


@dataclass
class Attacker:
    """One site of 64 patients, and whoever signs its requests.

    `site.found` holds what the attacker is after; its methods know only what the attacker would.
    """

    folder: Path
    patients: int = 64
    seed: int = 0
    rounds: int = ROUNDS
    site: MemorySite = field(init=False)
    campaign: Campaign = field(init=False)

    def __post_init__(self) -> None:
        chance = np.random.default_rng(self.seed)
        age = chance.uniform(20, 80, self.patients)
        x = chance.normal(size=(self.patients, FEATURES)) + (age[:, None] - 50) / 30
        text = FILE.format(rounds=self.rounds, step_norm=TableMLP.max_step_norm, path_norm=TableMLP.max_path_norm)
        self.campaign = parse_campaign(text)
        self.site = table_site("harbour", self.folder, x=x, age=age, seed=self.seed)
        self.site.secret = 7  # as a deployed site has one
        self.site.offer(text, digest=self.campaign.digest)

    @property
    def names(self) -> tuple[str, ...]:
        return self.site.found.features

    def part(self, column: str) -> NDArray[np.intp]:
        assert self.site.unit is not None
        cohort = with_parts(self.site.found.cohort, self.site.unit, self.campaign)
        return np.flatnonzero(cohort[column] == 1)

    def estimator(self) -> TableMLP:
        found = configured(self.campaign, self.names)
        assert isinstance(found, TableMLP)
        return found

    def crafted_sums(
        self, means: NDArray[np.float64], sds: NDArray[np.float64], *, age_mean: float = 50.0, age_sd: float = 17.0
    ) -> PreparedSums:
        """Sums of a million invented patients with these means and SDs, whose features say nothing of their age."""
        analysis = preparation(self.campaign, self.names)
        assert analysis is not None
        zero, one, n = np.zeros(FEATURES), np.ones(FEATURES), 1e6
        iterate = {"centre": zero, "spread": one, "error": zero}
        if isinstance(analysis, Agreed):
            iterate[COLUMNS] = one
        layout = analysis.layout(iterate)
        values = {item.name: np.zeros(item.shape) for item in layout.fields}
        square = n * (np.diag(sds**2) + np.outer(means, means))
        values |= {
            "n": np.array([n]),
            "u": n * means[None],
            "uu": square[np.triu_indices(FEATURES)][None],
            "t": np.array([n * age_mean]),
            "tt": np.array([n * (age_sd**2 + age_mean**2)]),
            "ut": n * age_mean * means[None],
        }
        return PreparedSums(iterate=iterate, total=layout.flatten(values))

    def with_slope(self, sums: PreparedSums, sds: NDArray[np.float64], *, slope: float) -> PreparedSums:
        """The same sums, but such that the ridge regression says `slope` years a unit (SD) of feature 0."""
        analysis = preparation(self.campaign, self.names)
        assert analysis is not None
        layout, n = analysis.layout(sums.iterate), 1e6
        values = {item.name: np.array(layout.block(sums.total, item.name)) for item in layout.fields}
        values["ut"][..., 0] += n * slope * sds[0]
        return PreparedSums(iterate=sums.iterate, total=layout.flatten(values))

    def first(self, sums: PreparedSums) -> dict[str, NDArray[Any]]:
        return first_model(self.campaign, self.names, fold=0, sums=sums)

    def new_run(self) -> str:
        return f"run-{next(_runs)}"

    def send(
        self,
        weights: Mapping[str, NDArray[Any]],
        *,
        run: str,
        round_number: int,
        sums: PreparedSums | None = None,
        kind: str = TRAIN,
    ) -> tuple[Reply, dict[str, NDArray[Any]], NDArray[np.float64] | None]:
        """A model out; the reply, the update and the validation sums that come back."""
        payload = {
            **join_model(weights),
            **join_preparation(sums),
            **join_iterates({VALIDATION: {}}),
        }
        request = Request(kind=kind, digest=self.campaign.digest, run=run, round=round_number)
        grid = InProcessGrid([self.site])
        message = grid.create_message(request_content(request, payload, key=None), kind, 1, "1", 60.0)
        (answer,) = grid.pull_messages(grid.push_messages([message]))
        reply, arrays = answer_of(answer)
        return reply, model_of(arrays), arrays.get(VALIDATION)

    def walk(
        self, first: Mapping[str, NDArray[Any]], target: Mapping[str, NDArray[Any]], *, steps: int
    ) -> list[dict[str, NDArray[Any]]]:
        """Models in a straight line from the first to the target, both included."""
        shares = np.linspace(0, 1, steps + 1)
        return [
            {name: (array + share * (target[name] - array)).astype(np.float32) for name, array in first.items()}
            for share in shares
        ]
