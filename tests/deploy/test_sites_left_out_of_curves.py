"""Sites whose patients die early withhold their tables first; a curve of the others must not pass as one of all."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fedage.common.analyses.survival import results as survival_results
from fedage.common.analyses.survival._kaplan_meier_shown import left_out
from tests.deploy.simulating import as_csv, simulated

CAMPAIGN = """
[campaign]
name = "selected"
purpose = "See whether curves say whose they are not"
seed = 1
[table]
id = "who"
age = "age"
[privacy]
minimum_count = 10
[survival]
table_times_years = [1, 2, 3, 5, 8, 10]
"""


@pytest.mark.parametrize(
    ("scales", "out"), [((0.3, 0.2, 8, 8, 10), True), ((0.2, 8, 8), True), ((8, 8, 0.3, 8), True), ((8, 8, 8), False)]
)
def test_sites_that_are_in_no_curve_are_named(tmp_path: Path, scales: tuple[float, ...], out: bool) -> None:
    rng = np.random.default_rng(3)
    n = 300
    parts = []
    for number, scale in enumerate(scales):
        dies, leaves = rng.exponential(scale, n), rng.uniform(0, 15, n)
        times = np.minimum(dies, leaves)
        parts.append(
            pd.DataFrame(
                {
                    "who": [f"p{number}-{k}" for k in range(n)],
                    "site": f"s{number}",
                    "age": rng.uniform(40, 80, n),
                    "time_years": times,
                    "event": (dies <= leaves).astype(int),
                }
            )
        )
    done = simulated(tmp_path / "run", CAMPAIGN, data=as_csv(pd.concat(parts), tmp_path / "t.csv"), site_column="site")
    found = survival_results.survival(done.results).kaplan_meier if survival_results.survival(done.results) else None
    assert found is not None
    missing = {f"s{k}" for k in range(len(scales))} - set(found.sites)
    said = " ".join(left_out(done.results))
    assert bool(missing and any(group.survival for group in found.groups)) == bool(said) == out
    page = (done.folder / "report.html").read_text(encoding="utf-8")
    assert ("Not in the curves" in page) == out
    for site in missing if out else ():
        assert f"{site}" in said.split("which withheld")[0]
