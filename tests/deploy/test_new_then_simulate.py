"""From `fedage campaign new` straight to a simulation: what it writes runs as it is, and gives the table's numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fedage.common.analyses.evaluation import results as evaluation_results
from fedage.common.analyses.groups import result
from fedage.common.analyses.survival import results as survival_results
from fedage.deploy.cli import main
from tests.deploy.simulating import as_csv, simulated


def table(patients: int = 240) -> pd.DataFrame:
    rng = np.random.default_rng(4)
    age = rng.uniform(20, 80, patients)
    dx = np.arange(patients) % 2
    predicted = age + 3.0 * dx + rng.normal(0, 4, patients)
    time = rng.exponential(5, patients)
    return pd.DataFrame(
        {
            "who": [f"p{k}" for k in range(patients)],
            "site": [f"s{k % 3}" for k in range(patients)],
            "AGE": age,
            "sex": np.where(rng.random(patients) < 0.5, "M", "F"),
            "brain_age": predicted,
            "dx": dx,
            "x1": age + rng.normal(0, 5, patients),
            "years": np.minimum(time, 8),
            "died": (time < 8).astype(int),
        }
    )


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    def run(*flags: object) -> str:
        given = ["fedage", "campaign", "new", "--age", "AGE", "--id", "who", "--sex", "sex", *map(str, flags)]
        monkeypatch.setattr("sys.argv", [*given, "--out", str(tmp_path / "new.toml"), "--force"])
        with pytest.raises(SystemExit) as end:
            main()
        assert not end.value.code
        return (tmp_path / "new.toml").read_text()

    return run


def test_groups_and_statistics_on_ages_already_predicted(written, tmp_path: Path) -> None:
    frame = table()
    text = written("--analysis-only", "--predicted", "brain_age", "--group-column", "dx", "--held-fixed", "age_years")
    done = simulated(tmp_path / "run", text, data=as_csv(frame, tmp_path / "t.csv"), site_column="site")
    gap = frame.brain_age - frame.AGE
    overall = evaluation_results.evaluation(done.results).test.raw.overall
    assert overall is not None
    assert overall.mae_years == pytest.approx(gap.abs().mean(), abs=1e-9)
    groups = result.groups(done.results)
    assert groups is not None
    assert groups.corrected.gap == "raw_gap_years"
    sites = pd.get_dummies(frame.site).to_numpy(dtype=float)
    design = np.column_stack([frame.dx, frame.AGE, sites])
    slope = np.linalg.lstsq(design, gap.to_numpy(), rcond=None)[0][0]
    assert groups.corrected.adjusted is not None
    assert groups.corrected.adjusted.difference_years == pytest.approx(slope, abs=1e-8)
    assert "corrected gap" not in (done.folder / "report.html").read_text()


def test_survival_alone(written, tmp_path: Path) -> None:
    text = written("--analysis-only", "--time", "years", "--event", "died", "--covariates", "age_years,is_male")
    done = simulated(tmp_path / "run", text, data=as_csv(table(), tmp_path / "t.csv"), site_column="site")
    assert result.groups(done.results) is None
    assert survival_results.survival(done.results) is not None
    (model,) = survival_results.survival(done.results).cox
    assert not model.not_computed
    assert [covariate.name for covariate in model.covariates] == ["age_years", "is_male"]


def test_the_gap_of_predicted_ages_in_a_survival_analysis(written, tmp_path: Path) -> None:
    text = written(
        "--analysis-only", "--analyses", "survival,statistics", "--predicted", "brain_age", "--time", "years"
    )
    done = simulated(
        tmp_path / "run",
        text,
        data=as_csv(table().rename(columns={"died": "event"}), tmp_path / "t.csv"),
        site_column="site",
    )
    assert survival_results.survival(done.results) is not None
    assert [covariate.name for covariate in survival_results.survival(done.results).cox[0].covariates] == [
        "raw_gap_years",
        "age_years",
    ]
    assert evaluation_results.evaluation(done.results).test.raw.overall is not None


def test_a_ridge_with_groups(written, tmp_path: Path) -> None:
    text = written("--estimator", "table-ridge", "--features", "x1", "--group-column", "dx")
    done = simulated(tmp_path / "run", text, data=as_csv(table(), tmp_path / "t.csv"), site_column="site")
    assert done.results.run.status == "finished"
    assert result.groups(done.results) is not None
    assert result.groups(done.results).corrected.gap == "gap_years"


def judged_on_the_healthy(text: str, column: str, value: int) -> str:
    chosen = f'train_on = "healthy"\nhealthy = {{ column = "{column}", equals = {value} }}'
    found = text.replace('train_on = "all"', chosen).replace('\nhealthy = "all"', "")
    assert found.count("\nhealthy = {") == 1
    return found


@pytest.mark.parametrize("healthy", [0, 1])
def test_ages_already_predicted_are_judged_on_the_healthy_where_the_file_says_so(
    written, tmp_path: Path, healthy: int
) -> None:
    frame = table()
    text = written("--analysis-only", "--predicted", "brain_age", "--group-column", "dx", "--held-fixed", "age_years")
    text = judged_on_the_healthy(text, "dx", healthy)
    done = simulated(tmp_path / "run", text, data=as_csv(frame, tmp_path / "t.csv"), site_column="site")
    off = (frame.brain_age - frame.AGE).abs()
    overall, own = evaluation_results.evaluation(done.results).test.raw.overall, off[frame.dx == healthy]
    assert overall is not None
    assert overall.n == own.size
    assert overall.mae_years == pytest.approx(own.mean(), abs=1e-9)
    assert abs(own.mean() - off.mean()) > 0.05, "the healthy must differ from all for this to tell"
    assert done.results.campaign.train_on == "healthy"
    assert result.groups(done.results) is not None
    assert result.groups(done.results).corrected.unadjusted is not None, "the others are still compared"
    assert "healthy patients" in (done.folder / "report.html").read_text()


def test_the_few_who_are_not_healthy_are_in_no_sum_of_ages_already_predicted(written, tmp_path: Path) -> None:
    frame = table().assign(well=1.0)
    frame.loc[:8, "well"] = 0.0  # three a site
    text = written(
        "--analysis-only", "--predicted", "brain_age", "--analyses", "survival,statistics", "--time", "years"
    )
    text = judged_on_the_healthy(text.replace('event = "event"', 'event = "died"'), "well", 1)
    done = simulated(tmp_path / "run", text, data=as_csv(frame, tmp_path / "t.csv"), site_column="site")
    overall, survival = (
        evaluation_results.evaluation(done.results).test.raw.overall,
        survival_results.survival(done.results),
    )
    assert overall is not None
    assert survival is not None
    assert overall.n == survival.cox[0].n == 240 - 9


def test_covariates_keep_the_names_that_the_table_gives_them(written, tmp_path: Path) -> None:
    """A blank, a hyphen, letters beyond ASCII and what would be markup in a page or a terminal."""
    names = {"tumour size": 1.0, "ki-67 <b>": 0.5, "Größe [red]": 2.0}
    rng = np.random.default_rng(1)
    frame = table().assign(**{name: unit * rng.normal(size=240) for name, unit in names.items()})
    plain = {name: f"c{number}" for number, name in enumerate(names)}
    found = []
    for number, columns in enumerate((tuple(names), tuple(plain.values()))):
        text = written("--analysis-only", "--time", "years", "--event", "died", "--covariates", ",".join(columns))
        renamed = frame if number == 0 else frame.rename(columns=plain)
        data = as_csv(renamed, tmp_path / f"{number}.csv")
        done = simulated(tmp_path / f"run-{number}", text, data=data, site_column="site")
        assert survival_results.survival(done.results) is not None
        (model,) = survival_results.survival(done.results).cox
        assert [covariate.name for covariate in model.covariates] == list(columns)
        found.append([covariate.hazard_ratio for covariate in model.covariates])
        if number == 0:
            page = (done.folder / "report.html").read_text()
            assert "ki-67 &lt;b&gt;" in page
            assert "ki-67 <b>" not in page
            assert "Größe [red]" in page
    assert found[0] == found[1]
