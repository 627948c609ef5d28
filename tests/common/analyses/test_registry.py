"""Analyses of other installed packages: found by entry point, asked for by the file, computed, recorded and shown."""

import importlib
import io
import pkgutil
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from fedage.common import analyses
from fedage.common.analyses import registry
from fedage.common.analyses.definition import Definition
from fedage.common.analyses.plan import registered, stages
from fedage.common.campaign_file import CampaignErrors, parse_campaign
from fedage.common.campaign_file.describe import campaign_sentences
from fedage.common.statistics.cohort import Cohort
from fedage.server.cli.summary import print_summary
from fedage.server.compare import tables
from fedage.server.compare.comparison import Comparison, compare
from fedage.server.compare.page import render_comparison
from fedage.server.compare.runs import load_runs
from fedage.server.record.results import read_results
from fedage.server.report import render_report
from fedage.server.report.shown import subjects_not_asked_for
from tests.deploy.simulating import as_csv, simulated

NAME = "mean-of-column"
CAMPAIGN = """
[campaign]
name = "heights"
purpose = "How tall are the patients"
seed = 1

[table]
id = "subject"
age = "age"

[analyses.mean-of-column]
column = "height_cm"
"""
MODULE = '''
"""The mean of one column: n and its sum."""
from dataclasses import dataclass

from fedage.common.analyses.columns import bound_of, in_subset, usable
from fedage.common.analyses.base import Done, NotComputable, check_iterate
from fedage.common.analyses.columns_read import columns_read
from fedage.common.analyses.definition import Definition, Step
from fedage.common.campaign.types import Column, Table
from fedage.common.presentation import cells
from fedage.common.presentation.blocks import FigureBlock, Section, Display, TitledTable
from fedage.common.record.parts import AnalysisResult
from fedage.common.statistics.statistic import MAX_PATIENTS, Cell, Field, Layout, Statistic


class Options(Table):
    """The mean of one column."""

    column: Column


class Mean(AnalysisResult):
    n: int
    mean: float


@dataclass(frozen=True)
class MeanOfColumn:
    name: str
    column: str
    per_site: bool = False
    subset: str = "is_test"

    def first(self):
        return {}

    def check(self, iterate):
        check_iterate(iterate, {}, bound=0)

    def layout(self, iterate):
        bound = bound_of(self.column) * MAX_PATIENTS
        return Layout((Field("n", lower=0, upper=MAX_PATIENTS, whole=True), Field("sum", lower=-bound, upper=bound)))

    def local(self, cohort, iterate):
        kept, _ = usable(in_subset(cohort, self.subset), (self.column,))
        values = {"n": kept.n, "sum": kept[self.column].sum()}
        return Statistic.of(self.layout(iterate), values, [Cell(kept.n, "patients")])

    def columns_read(self, cohort, iterate):
        return columns_read(usable(in_subset(cohort, self.subset), (self.column,))[0], needed=(self.column,))

    def combine(self, total, iterate):
        n = total.scalar("n")
        return Done({"n": round(n), "mean": total.scalar("sum") / n}) if n else NotComputable("nobody")


def _column(campaign):
    return campaign.analyses.options("mean-of-column", Options).column


def _table(label, found):
    rows = tuple((cells.words(label), cells.count(each.n), cells.number(each.mean, 4)) for each in found.values())
    return TitledTable(cells.Table("mean-of-column", ("run", "patients", "mean"), rows), "Mean of a column")


def _shown(results):
    told = _table("this run", results.of_type(Mean))
    sentences = tuple(f"The mean is {each.mean:.4f}." for each in results.of_type(Mean).values())
    return Display(sentences=sentences, terminal=(told,), sections=(Section("mean", "Means", (told,)),))


def _compared(runs):
    told = tuple(_table(run.label, run.results.of_type(Mean)) for run in runs)
    means = {run.label: found for run in runs for found in run.results.of_type(Mean).values()}
    drawn = FigureBlock(lambda: "<svg>two bars</svg>", "A bar a run.", runs=tuple(means)[:1])
    return Display(
        terminal=told,
        headline=(("mean height", {label: cells.number(each.mean, 3) for label, each in means.items()}),),
        columns=(("its patients", {label: cells.count(each.n) for label, each in means.items()}),),
        notes=("Heights were measured without shoes.",),
        document={"tallest": max(means, key=lambda label: means[label].mean)},
        sections=(Section("mean", "Means", (*told, drawn)),),
    )


ANALYSIS = Definition(
    name="mean-of-column",
    result=Mean,
    steps=lambda campaign, steps: [Step(MeanOfColumn("mean-of-column", _column(campaign)))],
    words=lambda step: "the mean of a column",
    options=Options,
    asked=lambda campaign: [f"It computes the mean of {_column(campaign)}."],
    columns=lambda campaign: [_column(campaign)],
    subject="a mean",
    notes=lambda result: [f"{result['n']} patients were measured."],
    shown=_shown,
    compared=_compared,
    figures=lambda results: {"mean_height": [each.mean for each in results.of_type(Mean).values()]},
    missing=lambda results: {} if results.of_type(Mean) else {"height": "nobody measured it"},
)
'''


def install(
    site_packages: Path,
    package: str,
    *,
    module: str = MODULE,
    name: str = "mean-of-column",
    attribute: str = "ANALYSIS",
) -> None:
    """What an installer leaves of a package with one analysis."""
    (site_packages / f"{package}.py").write_text(textwrap.dedent(module))
    info = site_packages / f"{package}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[{registry.GROUP}]\n{name} = {package}:{attribute}\n")


@pytest.fixture
def site_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = tmp_path / "site-packages"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    registry._load.cache_clear()
    yield folder
    registry._load.cache_clear()
    for name in ("heights", "taller", "broken"):
        sys.modules.pop(name, None)


def heights(seed: int) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    names = {"subject": range(60), "hospital": np.repeat(["north", "south"], 30), "age": rng.uniform(20, 80, 60)}
    return pd.DataFrame({**names, "height_cm": rng.normal(170, 10, 60)})


def assert_compared(comparison: Comparison, page: str, *, heights_cm: dict[str, float]) -> None:
    """Whatever an analysis gives for several runs is shown where it belongs, and its figure says what it is without."""
    heads = tables.headline(comparison), tables.headline(comparison, with_columns=False)
    assert [table.headers[-1] for table in heads] == ["its patients", "mean height"]
    shown_cm = {row[0].text.split("/")[0]: row[-1].text for row in heads[1].rows}
    assert shown_cm == {label: f"{mean:.3f}" for label, mean in heights_cm.items()}
    assert "Heights were measured without shoes." in comparison.notes
    values = comparison.model_dump(mode="json")
    assert values["tallest"].startswith(max(heights_cm, key=heights_cm.__getitem__))
    assert [run["mean_height"] for run in values["runs"]] == [[pytest.approx(mean)] for mean in heights_cm.values()]
    assert all("height" not in run.missing for run in comparison.runs)
    figure = page[page.index("<svg>two bars</svg>") :].partition("</figure>")[0]
    assert "A bar a run. Not drawn, because the record does not have it: run-2" in figure


def test_a_packages_analysis_goes_all_the_way(site_packages: Path, tmp_path: Path, monkeypatch) -> None:
    install(site_packages, "heights")
    runs = {}
    for seed in (1, 2):
        folder = tmp_path / f"run-{seed}"
        data = as_csv(heights(seed), folder / "data.csv")
        runs[seed] = simulated(folder, CAMPAIGN, data=data, site_column="hospital")
    means = {seed: f"{heights(seed).height_cm.mean():.4f}" for seed in runs}
    first = runs[1].results
    assert first.analyses["mean-of-column"].sites == ("north", "south")
    console = Console(file=io.StringIO(), width=200)
    print_summary(first, console=console)
    comparison = compare(load_runs([run.folder for run in runs.values()]))
    page = render_comparison(comparison)
    assert_compared(comparison, page, heights_cm={f"run-{seed}": heights(seed).height_cm.mean() for seed in runs})
    assert "mean-of-column: 60 patients were measured." in first.notes
    assert subjects_not_asked_for(first) == ["a survival analysis", "a comparison of groups"]
    for text in (console.file.getvalue(), render_report(first), page):  # type: ignore[attr-defined]
        assert means[1] in text
    assert means[2] in page
    assert "It computes the mean of height_cm." in campaign_sentences(parse_campaign(CAMPAIGN))
    # Without the package the record is read, and what cannot be shown is said.
    monkeypatch.setattr(sys, "path", [each for each in sys.path if each != str(site_packages)])
    registry._load.cache_clear()
    again = read_results(runs[1].folder / "results.json")
    assert again.analyses["mean-of-column"].result is not None
    assert again.analyses["mean-of-column"].result.model_dump() == {
        "n": 60,
        "mean": pytest.approx(float(means[1]), abs=1e-3),
    }
    assert "What the analysis mean-of-column found is in the record and not shown" in render_report(again)
    with pytest.raises(CampaignErrors, match=r"\[analyses.mean-of-column\]: no analysis of this name"):
        parse_campaign(CAMPAIGN)


def test_an_analysis_that_does_not_say_what_it_reads_is_withheld(site_packages: Path, tmp_path: Path) -> None:
    """No account of its columns could be kept: two campaigns with two nearly equal columns would give one patient."""
    install(site_packages, "heights", module=MODULE.replace("def columns_read(self", "def columns_kept(self"))
    data = as_csv(heights(1), tmp_path / "run" / "data.csv")
    found = simulated(tmp_path / "run", CAMPAIGN, data=data, site_column="hospital").results
    assert found.analyses["mean-of-column"].result is None
    for site in found.sites:
        (withheld,) = site.withheld
        assert withheld.step == "mean-of-column"
        assert withheld.reason.startswith("columns-unknown: ")
        assert "columns_read" in withheld.reason


def test_a_column_that_the_analysis_reads_has_to_be_there(site_packages: Path, tmp_path: Path) -> None:
    install(site_packages, "heights")
    data = as_csv(heights(1).drop(columns="height_cm"), tmp_path / "run" / "data.csv")
    with pytest.raises(Exception, match="has no column 'height_cm'"):
        simulated(tmp_path / "run", CAMPAIGN, data=data, site_column="hospital")


def test_what_is_installed_and_not_asked_for_is_no_step(site_packages: Path) -> None:
    install(site_packages, "broken", module="raise RuntimeError('loaded')")
    text = CAMPAIGN.replace("[analyses.mean-of-column]\ncolumn", "[survival]\nmodels = []\nevent")
    campaign = parse_campaign(text)
    assert "mean-of-column" not in registered(campaign)
    assert "broken" not in sys.modules


@pytest.mark.parametrize(
    ("packages", "message"),
    [
        ({"broken": {"module": "import no_such_module_anywhere"}}, "cannot be loaded"),
        ({"broken": {"attribute": "NO_SUCH"}}, "cannot be loaded"),
        ({"broken": {"module": "ANALYSIS = 3"}}, "is no Definition of that name"),
        ({"broken": {"module": MODULE.replace('name="mean-of-column",', 'name="another",')}}, "is no Definition"),
        ({"broken": {"module": MODULE.replace("    options=Options,\n", "")}}, "is no Definition of that name with"),
        ({"heights": {}, "taller": {}}, "each bring an analysis 'mean-of-column'; uninstall all but one"),
    ],
)
def test_an_unusable_package_is_named_with_the_mend(site_packages: Path, packages, message: str) -> None:
    for package, options in packages.items():
        install(site_packages, package, **options)
    with pytest.raises(CampaignErrors) as error:
        parse_campaign(CAMPAIGN)
    assert message in str(error.value)
    assert next(iter(packages)) in str(error.value)


def test_no_package_takes_the_place_of_an_own_analysis(site_packages: Path) -> None:
    install(site_packages, "broken", module="raise RuntimeError('loaded')", name="concordance")
    assert registry.definition_of("concordance") is registry.own()["concordance"]


def test_analyses_come_after_those_they_build_on_and_no_circle_is_taken() -> None:
    own = registry.own()
    order = list(own)
    for name, definition in own.items():
        assert all(order.index(name) > order.index(each) for each in definition.builds_on if each in own)
    a, b = (own["concordance"], own["proportional-hazards"])
    with pytest.raises(registry.AnalysisUnusable, match="circle"):
        registry.in_order([replace(a, builds_on=(b.name,)), replace(b, builds_on=(a.name,))])


def test_steps_stand_after_what_they_need() -> None:
    text = CAMPAIGN.partition("[analyses")[0] + (
        '[survival]\nmodels = [{ name = "m", covariates = ["age_years"] }]\n'
        "[analyses.concordance]\n[analyses.proportional-hazards]\n"
    )
    before, after = stages(parse_campaign(text))
    names = [analysis.name for analysis in after]
    assert names.index("cox:m") < names.index("concordance:m")
    assert not before


def test_the_registry_names_every_analysis_of_the_folder() -> None:
    found = {}
    for module in pkgutil.walk_packages(analyses.__path__, f"{analyses.__name__}."):
        definition = getattr(importlib.import_module(module.name), "ANALYSIS", None)
        if isinstance(definition, Definition):
            found[definition.name] = definition
    assert registry.own() == found


def test_what_a_campaign_does_not_imply_has_nothing_to_say_of_it() -> None:
    campaign = parse_campaign(CAMPAIGN.partition("[analyses")[0] + 'predicted = "predicted"\n')
    of_it = registry.of_campaign(campaign)
    assert {"evaluation", "bias"} <= {each.name for each in of_it}
    for definition in registry.own().values():
        if definition not in of_it and definition.options is None:  # with a table of its own, only if asked for
            assert not list(definition.steps(campaign, {})), definition.name
            assert not list(definition.columns(campaign)), definition.name
            assert not definition.left_out(campaign), definition.name
            assert not list(definition.sets(campaign, Cohort({"is_test": np.ones(3), "healthy": np.ones(3)})))
