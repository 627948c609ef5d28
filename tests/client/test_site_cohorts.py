"""What a data set of the site's policy leaves of a campaign's cohort."""

from pathlib import Path

import numpy as np
import pytest

from fedage.client.cohort.indexing.index import index_folder
from fedage.client.cohort.indexing.join_outcomes import store_outcomes
from fedage.client.cohort.store.store import CohortStore
from fedage.client.cohort.table.outcomes import read_outcomes
from fedage.client.consent.policy.types import DataSet
from fedage.client.consent.site_cohorts import SiteCohorts
from fedage.common.campaign_file import parse_campaign
from fedage.common.protocol.messages import RequestRefused
from tests.client.cohort.dicoms import ramp, write

IMAGES = """
[campaign]
name = "chests"
purpose = "how old chests look"
seed = 1
[estimator]
name = "chest-ca"
[cohort]
modality = ["CR", "DX"]
age_max_years = 70
[training]
rounds = 1
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    for number, (modality, maker) in enumerate((("CR", "A"), ("DX", "B"), ("DX", "A"))):
        year = 1990 + 10 * number  # ages 29, 39, 49
        about = {"Modality": modality, "Manufacturer": maker, "StudyDate": f"{year}0317"}
        write(tmp_path / f"data/{number}.dcm", f"p{number}", pixels=ramp(240, 240), **about)
    with CohortStore.open(tmp_path / "home", key=bytes(range(32))) as store:
        index_folder(store, tmp_path / "data")
    return tmp_path / "home"


def ages(home: Path, data_set: DataSet | None) -> list[int]:
    return sorted(SiteCohorts(home).read(parse_campaign(IMAGES), data_set=data_set).cohort["age_years"].round())


def test_a_data_set_narrows_and_never_widens(home: Path) -> None:
    assert ages(home, None) == ages(home, DataSet()) == ages(home, DataSet(modality=("CR", "DX", "MG"))) == [29, 39, 49]
    assert ages(home, DataSet(modality=("DX", "MG"))) == [39, 49]
    assert ages(home, DataSet(age_min_years=35, age_max_years=130)) == [39, 49]
    assert ages(home, DataSet(manufacturer=("b",))) == [39]
    with pytest.raises(RequestRefused, match="no image of the modalities"):
        ages(home, DataSet(modality=("MG",)))


def test_keys_are_in_row_order(home: Path) -> None:
    found = SiteCohorts(home).read(parse_campaign(IMAGES))
    assert len(found.keys) == found.cohort.n == 3
    with CohortStore.open(home) as store:
        by_key = dict(zip(found.keys, found.cohort["age_years"].round(), strict=True))
        assert by_key == {store.patient_key(f"p{number}"): 29 + 10 * number for number in range(3)}
    assert found.keys[0] not in repr(found)


FOLLOWED = """
[survival]
[[survival.models]]
name = "age"
covariates = ["age_years"]
"""
EARLIER = {
    "too young": ("age_min_years = 35", {}),
    "with contrast": ("", {"SeriesDescription": "Barium swallow PA"}),
    "a lateral": ("", {"ViewPosition": "LL"}),
    "a phantom's": ("", {"QualityControlImage": "YES"}),
    "of a hand": ("", {"BodyPartExamined": "HAND", "Modality": "MR"}),
}


@pytest.mark.parametrize("why", EARLIER)
def test_a_time_counts_from_the_first_exam_and_from_no_later_one(home: Path, tmp_path: Path, why: str) -> None:
    """An exam of another modality is no earlier one: a hospital counts from the first of the campaign's kind."""
    cohort, about = EARLIER[why]
    of_a = {"Modality": "DX", "Manufacturer": "A"}
    write(tmp_path / "data/1.dcm", "p1", pixels=ramp(240, 240), StudyDate="20000317", **of_a)
    write(tmp_path / "data/early.dcm", "p1", pixels=ramp(240, 240), **{**of_a, "StudyDate": "19850317", **about})
    (tmp_path / "o.csv").write_text("patient_id,time_years,event\np0,1.5,1\np1,2.5,0\np2,3.5,1\n")
    text = IMAGES.replace("age_max_years = 70", f"age_max_years = 70\n{cohort}") + FOLLOWED
    with CohortStore.open(home) as store:
        index_folder(store, tmp_path / "data")
        with store.exclusive():
            store_outcomes(store, read_outcomes(tmp_path / "o.csv"))
    found = SiteCohorts(home).read(parse_campaign(text))
    with CohortStore.open(home) as store:
        times = dict(zip(found.keys, found.cohort["time_years"], strict=True))
        time = times[store.patient_key("p1")]
    is_known = why == "of a hand"
    assert (time == 2.5) if is_known else np.isnan(time)
    assert found.cohort["event"].size == len(found.keys)
    counted = found.rejected_files.get("follow-up-from-an-earlier-exam", 0)
    assert counted == np.isnan(found.cohort["time_years"]).sum() == (0 if is_known else 1)
