"""Sex and a clinical value beside an image, as columns of a hospital's outcomes: an estimator of another package, from
DICOM files and a table of outcomes to predicted ages, and the rules that hold for what a network reads so.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import load_file

from fedage.client.cohort.indexing.index import index_folder
from fedage.client.cohort.selection.parts import with_parts
from fedage.client.cohort.selection.row import LACKS_ROW, with_row
from fedage.client.cohort.site_cohort import SiteCohort
from fedage.client.cohort.store.store import CohortStore
from fedage.client.cohort.table.messages import reason_text
from fedage.client.consent.frozen_values import frozen_of, rows_changed
from fedage.client.consent.site_cohorts import SiteCohorts
from fedage.client.inbox.deployed import DeployedSite
from fedage.client.site.home import SiteHome, init_site
from fedage.common import estimators
from fedage.common.analyses.evaluation import results as evaluation_results
from fedage.common.campaign import Campaign
from fedage.common.campaign_file import parse_campaign
from fedage.common.campaign_file.describe import campaign_sentences
from fedage.common.estimators.base import ROW, Estimator, Samples
from fedage.common.protocol.messages import RequestRefused
from fedage.common.statistics.cohort import Cohort
from fedage.server.campaign.conduct import conduct
from fedage.server.campaign.run_so_far import Place
from fedage.server.record.heads import Heads
from fedage.server.record.results import Results, read_results
from fedage.server.superlink.grid import PollingGrid
from fedage.server.superlink.home import init_home
from tests.client.cohort.dicoms import write
from tests.machinery import InProcessGrid
from tests.plugins.pictures import TRAINED, pictures, site_with
from tests.plugins.test_in_process import error_of, run

pytestmark = pytest.mark.usefixtures("installed")

Values = NDArray[np.float64]
Columns = Mapping[str, Values]
KEY = bytes(range(32))
NAMES = ("a", "b", "c")


def patient_text(*, rounds: int = 20, exact: bool = True) -> str:
    """A campaign that waits for hospitals on a busy machine."""
    text = campaign_text(rounds=rounds, exact=exact).replace("wait_s = 1\n", "wait_s = 120\n")
    return text.replace("round_deadline_s = 1", "round_deadline_s = 120")


def campaign_text(*, rounds: int = 1, minimum: int = 5, clinical: str = "score", **options: bool) -> str:
    text = TRAINED.format(name="trial-beside", rounds=rounds) + "batch_size = 16\n[validation]\nfolds = 2\n"
    chosen = {"sex_input": True, **options}
    lines = [f"clinical = {clinical.split()}", *(f"{name} = {str(value).lower()}" for name, value in chosen.items())]
    text = text.replace("minimum_count = 5", f"minimum_count = {minimum}\nlargest_share = 0.9")
    return text + "\n".join(["[estimator.options]", *lines, ""]).replace("'", '"')


def people(count: int, seed: int) -> dict[str, Values]:
    """Ages of which half can be seen in a picture, and most of the rest follows from a score and from sex."""
    rng = np.random.default_rng(seed)
    seen, score, is_male = rng.uniform(-10, 10, count), rng.normal(0, 1, count), rng.integers(0, 2, count) * 1.0
    return {"seen": seen, "score": score, "is_male": is_male, "age_years": 60 + seen + 6 * score + 4 * is_male}


def render(folder: Path, found: Columns, *, seed: int, word: str = "") -> None:
    """DICOM files of a hospital, and its outcomes; a cell is empty where nothing is known, the last may be a word."""
    shown = pictures(60 + found["seen"], seed)
    lines = ["patient_id,score"]
    for k, picture in enumerate(shown[:, 0]):
        born = np.datetime64("2020-06-01") - np.timedelta64(round(found["age_years"][k] * 365.25), "D")
        write(
            folder / "images" / f"{k}.dcm",
            f"MRN-{seed}-{k}",
            pixels=np.rint(1000 + 400 * picture).clip(0, 4095).astype(np.uint16),
            StudyDate="20200601",
            PatientBirthDate=str(born).replace("-", ""),
            PatientSex="M" if found["is_male"][k] else "F",
        )
        cell = "" if np.isnan(found["score"][k]) else f"{found['score'][k]:.6f}"
        lines.append(f"MRN-{seed}-{k},{cell}")
    if word:
        lines[-1] = f"{lines[-1].split(',')[0]},{word}"
    (folder / "outcomes.csv").write_text("\n".join(lines) + "\n")


def indexed(folder: Path) -> SiteCohorts:
    with CohortStore.open(folder / "home", key=KEY) as store:
        index_folder(store, folder / "images", outcomes_csv=folder / "outcomes.csv")
    return SiteCohorts(folder / "home")


def read(folder: Path, text: str, found: Columns) -> SiteCohort:
    render(folder, found, seed=1)
    return indexed(folder).read(parse_campaign(text))


def in_memory(text: str, found: Columns) -> tuple[Samples, dict[str, int]]:
    """What `with_row` makes of patients whose pictures are nothing."""
    campaign, count = parse_campaign(text), len(found["age_years"])
    columns = {"age_years": found["age_years"], "is_male": found["is_male"]}
    columns |= {f"feature:{name}": values for name, values in found.items() if name in ("score", "other")}
    cohort = with_parts(Cohort(columns), (np.arange(count) * 0.618) % 1.0, campaign)
    return with_row(Samples({"chest": np.zeros((count, 1, 1, 1))}), cohort, campaign, made_of(campaign))


def made_of(campaign: Campaign) -> Estimator:
    assert campaign.estimator is not None
    return estimators.make(campaign.estimator.name, campaign.estimator.options)


def rows_of(site_cohort: SiteCohort) -> Values:
    assert site_cohort.samples is not None
    return site_cohort.samples[ROW]


def test_the_row_is_each_patients_own(tmp_path: Path) -> None:
    found = people(30, 1)
    made = read(tmp_path, campaign_text(), found)
    assert made.features == ("score",)
    assert made.cohort.n == 30
    age, row = made.cohort["age_years"], rows_of(made)
    order, theirs = np.argsort(age), np.argsort(found["age_years"])
    np.testing.assert_allclose(row[order, 0], found["score"][theirs], atol=1e-6)
    np.testing.assert_array_equal(row[order, 1], found["is_male"][theirs])
    assert made.samples is not None
    assert made.samples["chest"].shape == (30, 1, 16, 16)
    assert made.samples.has(ROW).all()


@pytest.mark.parametrize("may_lack", [False, True])
def test_who_lacks_a_value_is_left_out_or_marked(tmp_path: Path, may_lack: bool) -> None:
    found = people(60, 2)
    found["score"][:30] = np.nan
    found |= {"is_male": np.arange(60) % 2.0, "age_years": 60 + found["seen"]}
    made = read(tmp_path, campaign_text(may_lack=may_lack), found)
    assert made.samples is not None
    if may_lack:
        assert made.excluded == {}
        assert np.isnan(rows_of(made)[:, 0]).sum() == 30
        assert np.count_nonzero(~made.samples.has(ROW)) == 30
        assert not np.isnan(rows_of(made)[:, 1]).any()
    else:
        assert made.excluded == {LACKS_ROW: 30}
        assert made.cohort.n == 30
        assert not np.isnan(rows_of(made)).any()
        assert made.samples.has(ROW).all()


def one_patient(score: Values) -> Values:
    return np.where(np.arange(score.size) == 5, 1.0, 0.0)


def nearly_a_copy(score: Values) -> Values:
    return score + one_patient(score)


def one_far_out(score: Values) -> Values:
    return np.where(np.arange(score.size) == 5, 1e6, score)


def two_unknown(score: Values) -> Values:
    return np.where(np.arange(score.size) < 2, np.nan, -score)


def three_known(score: Values) -> Values:
    return np.where(np.arange(score.size) < 3, score, np.nan)


def all_alike(score: Values) -> Values:
    return np.full(score.size, 3.0)


@pytest.mark.parametrize("make", [one_patient, nearly_a_copy, one_far_out, two_unknown, three_known, all_alike])
def test_a_column_that_tells_of_a_few_counts_as_unknown(make: Callable[[Values], Values]) -> None:
    found = people(80, 3)
    found["other"] = make(found["score"])
    samples, unknown = in_memory(campaign_text(clinical="score other", may_lack=True), found)
    assert np.isnan(samples[ROW][:, 1]).all()
    assert not np.isnan(samples[ROW][:, [0, 2]]).any()
    assert unknown == {"unknown-in-row:other": 80}
    assert "other" in reason_text("unknown-in-row:other", 80)
    with pytest.raises(RequestRefused, match="cannot do without") as refused:
        in_memory(campaign_text(clinical="score other"), found)
    assert refused.value.rule == "influence"


def test_without_a_minimum_count_nothing_is_held_back() -> None:
    found = people(30, 4)
    found["other"] = one_patient(found["score"])
    samples, unknown = in_memory(campaign_text(clinical="other", minimum=1), found)
    assert (samples[ROW][:, 0].sum(), unknown) == (1, {})


def test_a_site_that_trains_nobody_moves_no_prediction_by_its_rows() -> None:
    samples, unknown = in_memory(campaign_text(may_lack=True), people(4, 9))
    assert np.isnan(samples[ROW]).all()
    assert set(unknown) == {"unknown-in-row:score", "unknown-in-row:is_male"}


def test_a_site_without_the_column_or_with_words_in_it_is_refused(tmp_path: Path) -> None:
    render(tmp_path, people(20, 5), seed=1, word="high")
    reader = indexed(tmp_path)
    with pytest.raises(RequestRefused, match="holds texts") as refused:
        reader.read(parse_campaign(campaign_text()))
    assert refused.value.rule == "text-column"
    with pytest.raises(RequestRefused, match="no column 'weight'") as refused:
        reader.count(parse_campaign(campaign_text(clinical="weight")))
    assert refused.value.rule == "features"
    assert reader.count(parse_campaign(campaign_text(clinical="weight", may_lack=True))) == 20


def test_its_values_are_frozen_at_approval(tmp_path: Path) -> None:
    campaign, found = parse_campaign(campaign_text()), people(40, 6)
    before = frozen_of(read(tmp_path, campaign_text(), found), campaign)
    found["score"][7] += 0.5
    render(tmp_path, found, seed=1)
    after = frozen_of(indexed(tmp_path).read(campaign), campaign)
    assert rows_changed(before.rows, after.rows) == 1


def test_an_administrator_reads_which_columns_it_takes() -> None:
    text = " ".join(campaign_sentences(parse_campaign(campaign_text(clinical="score weight"))))
    assert "Beside the images it reads of each patient: score, weight and sex." in text
    assert "Beside the images" not in " ".join(
        campaign_sentences(parse_campaign(campaign_text(clinical="", sex_input=False)))
    )


def test_without_columns_it_is_an_estimator_on_images_alone() -> None:
    made = estimators.make("trial-beside", {})
    assert (made.row_columns, [one.name for one in made.inputs]) == ((), ["chest"])


@pytest.mark.slow
@pytest.mark.parametrize("exact", [False, True])
def test_what_stands_beside_the_image_is_learnt(tmp_path: Path, exact: bool) -> None:
    members = []
    for seed, name in enumerate(NAMES):
        found = people(60, seed)
        row = np.column_stack([found["score"], found["is_male"]])
        columns = {"age_years": found["age_years"], "is_male": found["is_male"], "feature:score": found["score"]}
        samples = Samples({"chest": pictures(60 + found["seen"], seed), ROW: row})
        members.append(site_with(name, tmp_path, columns, samples, seed))
    results = run(tmp_path, patient_text(rounds=2 if exact else 20, exact=exact), members)
    if not exact:
        learnt(results)
        return
    assert error_of(results) < 5.5, "two rounds see little in the image; the row alone leaves 5 years"
    model = load_file(tmp_path / "run" / "model-fold-1.safetensors")
    # The network sees the row too, so that the coefficients of the two share the score's part as they happen to.
    assert np.isfinite(model["ridge.coefficients"]).all()


@pytest.fixture(scope="module")
def hospitals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one sub-folder a hospital, as `fedage simulate` takes it."""
    folder = tmp_path_factory.mktemp("hospitals")
    for seed, name in enumerate(NAMES):
        render(folder / name, people(60, seed), seed=seed)
    return folder


@pytest.mark.slow
def test_three_deployed_hospitals_train_on_both(tmp_path: Path, hospitals: Path) -> None:
    coordinator, members = init_home(tmp_path / "coordinator", hosts=("localhost",)), []
    campaign = parse_campaign(patient_text())
    for name in NAMES:
        home = tmp_path / name
        init_site(
            home,
            name=name,
            coordinator="localhost:8443",
            ca_certificate=coordinator.ca_certificate,
            coordinator_public_key=coordinator.signing_public_key,
            data=hospitals / name / "images",
            outcomes=hospitals / name / "outcomes.csv",
            threads=1,
            device="cpu",
        )
        (home / "policy.toml").write_text("[disclosure]\nminimum_count = 5\nlargest_share = 0.9\n")
        with CohortStore.open(home) as store:
            index_folder(store, hospitals / name / "images", outcomes_csv=hospitals / name / "outcomes.csv")
        site = DeployedSite(SiteHome.load(home))
        site.rules.approve(campaign)
        members.append(site)
    grid = InProcessGrid(members)
    place = Place(folder=tmp_path / "run", run="r1", environment="deployment", guard=True, sites_there=3)
    place.folder.mkdir(parents=True)
    conduct(
        PollingGrid(grid, poll_s=0.01),
        campaign,
        place,
        key=coordinator.signing_key(),
        admitted=grid.names,
        heads=Heads(tmp_path / "heads"),
    )
    for site in members:
        site.rules.close()
    learnt(read_results(tmp_path / "run" / "results.json"))


@pytest.mark.slow
def test_a_simulation_trains_on_both(tmp_path: Path, hospitals: Path, installed: Path) -> None:
    file = tmp_path / "campaign.toml"
    file.write_text(patient_text())
    path = os.pathsep.join([str(installed), os.environ.get("PYTHONPATH", "")])
    words = ["simulate", str(file), "--data", str(hospitals), "--out", str(tmp_path / "out")]
    command = [sys.executable, "-m", "fedage.deploy", *words]
    subprocess.run(command, check=True, env=os.environ | {"PYTHONPATH": path}, cwd=tmp_path)
    learnt(read_results(tmp_path / "out" / "results.json"))


def learnt(results: Results) -> None:
    overall = evaluation_results.evaluation(results).test.raw.overall
    assert results.run.status == "finished", results.run
    assert overall is not None
    assert overall.n == 180
    assert overall.mae_years is not None
    assert overall.mae_years < 4.0, "the mean leaves 6.7 years, the image alone and the row alone 5"
