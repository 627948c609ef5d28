"""A simulation with hidden sums comes to what it does with bare ones, and tells nothing by site."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.deploy.simulating import Simulated, as_csv, simulated
from tests.deploy.test_simulate_private import table

FILE = """
[campaign]
name = "ridge"
purpose = "Hide what each site brings in a simulation"
seed = 5
[estimator]
name = "table-ridge"
[estimator.options]
features = ["x*"]
penalty = 1.0
[table]
id = "who"
age = "age"
[privacy]
secure_aggregation = {hidden}
minimum_sites = 2
"""


@pytest.mark.slow
def test_a_simulation_hides_and_comes_to_the_same(tmp_path: Path) -> None:
    def run(hidden: bool) -> Simulated:
        folder = tmp_path / str(hidden)
        folder.mkdir()
        text = FILE.format(hidden=str(hidden).lower())
        return simulated(folder, text, data=as_csv(table(), folder / "table.csv"), site_column="site")

    bare, hidden = run(False).results, run(True).results
    assert hidden.run.status == "finished"
    for step, each in bare.analyses.items():
        found = hidden.analyses[step]
        assert found.by_site == {}
        assert found.sites == each.sites
        if len(each.sites) < 2:  # the other site withholds it
            assert "fewer than 2 sites" in found.not_computed
            continue
        if each.result is not None and "mae_years" in each.result.model_dump():
            assert found.result is not None
            one, other = (result.model_dump()["mae_years"] for result in (each.result, found.result))
            assert one == pytest.approx(other, rel=1e-9)
    assert all(site.patients is None and site.hidden for site in hidden.sites)
