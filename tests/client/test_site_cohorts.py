"""What a data set of the site's policy leaves of a campaign's cohort."""

from pathlib import Path

import pytest

from fedage.client.cohort.indexing.index import index_folder
from fedage.client.cohort.store.store import CohortStore
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
