"""Strategies where sites differ: MAE in years overall and at the worst site, beside pooled and single-site training.

    PYTHONPATH=. python tests/bench/bench_heterogeneity.py [fcon1000] [abide1] [phantoms] [--rounds 20] [--rates .01 .1]

Whole campaigns through the handlers of both sides in one process, of a network on a table that begins at the mean age,
so that all it knows comes from rounds. Each way of training takes the rate that is best for the validation part of one
seed, and is reported on the test part of three others. Disclosure control is off: sites of eight patients take part.
"""

from __future__ import annotations

import argparse
import logging
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from safetensors.numpy import load_file

from fedage.common.campaign_file import parse_campaign
from fedage.common.estimators.base import ROW, Samples
from fedage.common.estimators.configure import configured
from fedage.common.statistics.statistic import FloatArray
from fedage.server.campaign import conduct as conducting
from fedage.server.campaign.conduct import conduct
from fedage.server.campaign.run_so_far import Place
from fedage.server.sites.session import CampaignFailed
from fedage.server.superlink.grid import PollingGrid
from tests.bench.thickness import ThicknessSite, anatomy, draw_site, irreducible
from tests.machinery import InProcessGrid, MemorySite, table_site

DATA = Path(__file__).parents[3] / "shared/data"
APART = (ThicknessSite("young", 40, 53), ThicknessSite("middle", 55, 68), ThicknessSite("old", 70, 85))
EPOCHS, SEEDS, TUNED_ON = 5, (1, 2, 3), 11
FEWEST = 8
"""Test patients of a site that can be the worst one; patients of one that can train alone."""
STRATEGIES = {
    "fedavg": 'strategy = "fedavg"',
    "fedavg, sites equal": 'strategy = "fedavg"\nweighting = "equal"',
    "fedprox": 'strategy = "fedprox"\nproximal = 0.1',
    "fedavgm": 'strategy = "fedavgm"\nserver_momentum = 0.5',
    "fedadam": 'strategy = "fedadam"\nserver_learning_rate = 0.02',
    "scaffold": 'strategy = "scaffold"',
}
RATES = (0.003, 0.01, 0.03, 0.1)
PLAIN = 10
"""Steps without momentum are so much longer: those of momentum 0.9 come to ten times the rate."""
TEXT = """
[campaign]
name = "heterogeneity"
purpose = "Hold strategies against each other where sites differ"
seed = {seed}
wait_s = 1
[estimator]
name = "table-mlp"
[estimator.options]
features = ["*"]
hidden = [32]
start = "mean"
noise = 0.5
age_scale = "log"
[table]
age = "age"
[training]
rounds = {rounds}
local_epochs = {epochs}
batch_size = 16
optimiser = "sgd"
learning_rate = {rate}
final_learning_rate_fraction = 0.1
quorum = 1
{strategy}
[validation.fractions]
train = 0.5
validation = 0.2
test = 0.3
[privacy]
minimum_count = 1
largest_share = 1.0
patients_per_column = 0.0
[simulation]
guard = false
"""
Tables = Mapping[str, tuple[FloatArray, FloatArray]]
"""By site, features (n, p) and ages (n,)."""


def fcon1000(_seed: int) -> Tables:
    table = pd.read_csv(DATA / "thickness/fcon1000.csv")
    return of_sites(table, "site", "age", [c for c in table if c.endswith("_thickness") and "MeanThickness" not in c])


def abide1(_seed: int) -> Tables:
    table = pd.read_csv(DATA / "abide1/abide1-freesurfer.csv")
    table = table[table.DX_GROUP == -1]
    return of_sites(table, "SITE", "AGE_AT_SCAN", [c for c in table if c.endswith(("ThickAvg", "GrayVol"))])


def phantoms(seed: int) -> Tables:
    cortex = anatomy()
    print(f"  irreducible: {irreducible(cortex, APART)}", flush=True) if seed == TUNED_ON else None
    drawn = {site.name: draw_site(cortex, site, seed=seed, patients=300) for site in APART}
    return {name: (each.x_mm, each.age_years) for name, each in drawn.items()}


def of_sites(table: pd.DataFrame, site: str, age: str, columns: list[str]) -> Tables:
    found = {}
    for name, rows in table.dropna(subset=[age]).groupby(site):
        key = "".join(c if c.isalnum() else "-" for c in str(name).lower()).strip("-")
        found[key] = (rows[columns].to_numpy(float), rows[age].to_numpy(float))
    return found


def members(tables: Tables, folder: Path, *, seed: int) -> list[MemorySite]:
    made = []
    for number, (name, (x, age)) in enumerate(tables.items()):
        site = table_site(name, folder, x=x, age=age, seed=1000 * seed + number)
        made.append(replace(site, guard=False))
    return made


def pooled(sites: list[MemorySite], folder: Path) -> MemorySite:
    """One site of all patients, each in the part that it has at its own."""
    x = np.concatenate([site.found.samples[ROW] for site in sites if site.found.samples is not None])
    age = np.concatenate([site.found.cohort["age_years"] for site in sites])
    made = table_site("all", folder, x=x, age=age)
    return replace(made, guard=False, unit=np.concatenate([site.unit for site in sites if site.unit is not None]))


def errors(
    training: list[MemorySite], judged: list[MemorySite], *, part: str, **about: object
) -> dict[str, FloatArray]:
    """|predicted − age| of a part of each judged site's patients, by a model trained at some sites."""
    campaign = parse_campaign(TEXT.format(epochs=EPOCHS, **about))
    with tempfile.TemporaryDirectory() as place:
        run = Path(place) / "run"
        grid = InProcessGrid([replace(site, folder=Path(place) / "sites") for site in training])
        where = Place(folder=run, run="r1", environment="simulation", guard=False)
        conduct(PollingGrid(grid, poll_s=0.001), campaign, where, key=None, admitted=grid.names)
        weights = load_file(run / "model.safetensors")
    estimator = configured(campaign, judged[0].found.features)
    assert estimator is not None
    predict = estimator.predictor(weights, device="cpu")
    found = {}
    for site in judged:
        cohort = site.cohort(campaign)
        rows = np.flatnonzero(cohort.cohort[part] == 1)
        assert cohort.samples is not None
        if rows.size:
            years = predict(Samples({ROW: cohort.samples[ROW][rows]}))["predicted_years"]
            found[site.name] = np.abs(years - cohort.cohort["age_years"][rows])
    return found


def ways(sites: list[MemorySite], folder: Path) -> Iterator[tuple[str, list[list[MemorySite]], str]]:
    """What to call it, who trains together, and the strategy."""
    yield "pooled", [[pooled(sites, folder)]], STRATEGIES["fedavg"]
    for name, strategy in STRATEGIES.items():
        yield name, [sites], strategy
    alone = [[site] for site in sites if site.found.cohort.n >= FEWEST]
    yield "each site alone", alone, STRATEGIES["fedavg"]


def of_way(groups: list[list[MemorySite]], sites: list[MemorySite], **about: object) -> dict[str, FloatArray]:
    if len(groups) == 1:
        return errors(groups[0], sites, **about)  # type: ignore[arg-type]
    found: dict[str, FloatArray] = {}
    for group in groups:
        found |= errors(group, group, **about)  # type: ignore[arg-type]
    return found


def main() -> None:
    """Print the tables that are asked for."""
    parser = argparse.ArgumentParser()
    parser.add_argument("names", nargs="*", default=["phantoms", "abide1", "fcon1000"])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--rates", type=float, nargs="+", default=RATES)
    parser.add_argument("--only", help="one way of training, as the table calls it")
    given = parser.parse_args()
    logging.disable(logging.WARNING)
    # Hundreds of runs, whose reports nobody reads.
    conducting.render_report = lambda _results, *, events: ""  # type: ignore[attr-defined]  # noqa: ARG005
    for name in given.names:
        print(f"\n## {name}", flush=True)
        draw = {"fcon1000": fcon1000, "abide1": abide1, "phantoms": phantoms}[name]
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place)
            tuned = members(draw(TUNED_ON), folder, seed=TUNED_ON)
            sizes = sorted(site.found.cohort.n for site in tuned)
            print(f"  {len(tuned)} sites of {sizes[0]} to {sizes[-1]}, {sum(sizes)} patients", flush=True)
            of_seed = {seed: members(draw(seed), folder, seed=seed) for seed in SEEDS}
            for number, (way, groups, strategy) in enumerate(ways(tuned, folder)):
                if given.only not in (None, way):
                    continue
                began, plain = time.process_time(), PLAIN if way == "scaffold" else 1
                by_rate = {}
                for rate in given.rates:
                    about = {"strategy": strategy, "rate": plain * rate, "seed": TUNED_ON, "rounds": given.rounds}
                    try:
                        found = of_way(groups, tuned, part="is_validation", **about)
                    except CampaignFailed:  # diverged
                        continue
                    by_rate[rate] = float(np.concatenate(list(found.values())).mean())
                rate = min(by_rate, key=by_rate.__getitem__)
                overall, worst = [], []
                for seed, sites in of_seed.items():
                    _, there, _ = list(ways(sites, folder))[number]
                    about = {"strategy": strategy, "rate": plain * rate, "seed": seed, "rounds": given.rounds}
                    found = of_way(there, sites, part="is_test", **about)
                    overall.append(float(np.concatenate(list(found.values())).mean()))
                    worst.append(max(float(each.mean()) for each in found.values() if each.size >= FEWEST))
                spent = time.process_time() - began
                shown = " ".join(f"{one:.2f}" for one in overall), " ".join(f"{one:.2f}" for one in worst)
                print(
                    f"| {way} | {np.mean(overall):.2f} ({shown[0]}) | {np.mean(worst):.2f} ({shown[1]}) | {rate:g} | "
                    f"{spent:.0f} s CPU",
                    flush=True,
                )


if __name__ == "__main__":
    main()
