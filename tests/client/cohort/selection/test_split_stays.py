"""Who trains, validates and tests, while a hospital's data grows."""

from pathlib import Path

import numpy as np

from fedage.client.cohort.indexing.index import index_folder
from fedage.client.cohort.selection.fold_assignment import round_robin_folds
from fedage.client.cohort.selection.split import split
from fedage.client.cohort.store.query import Selection, select
from fedage.client.cohort.store.store import CohortStore
from fedage.common.campaign.types import Fractions
from tests.client.cohort.dicoms import write

FRACTIONS = Fractions(train=0.6, validation=0.2, test=0.2)


def all_of(store: CohortStore, patients: tuple[str, ...] | None = None) -> Selection:
    return select(store, modalities=(), age_min_years=0, age_max_years=130, patients=patients)


def parts(selection: Selection) -> dict[str, int]:
    """The part of each patient."""
    part = np.argmax(np.stack(split(selection.split_uniform, FRACTIONS)), axis=0)
    return dict(zip(selection.keys, part.tolist(), strict=True))


def folds(selection: Selection) -> dict[str, float]:
    fold = round_robin_folds(selection.split_uniform, np.ones(selection.n), 5)
    return dict(zip(selection.keys, fold.tolist(), strict=True))


def test_nobody_changes_part_when_patients_come_images_come_and_patients_go(tmp_path: Path) -> None:
    data = tmp_path / "data"
    for number in range(30):
        write(data / f"{number}.dcm", f"p{number}")
    with CohortStore.open(tmp_path / "home", key=bytes(range(32))) as store:
        index_folder(store, data)
        before = all_of(store)
        assert set(parts(before).values()) == {0, 1, 2}
        for number in range(30, 60):
            write(data / "new" / f"{number}.dcm", f"p{number}")
        write(data / "second exam.dcm", "p0", StudyDate="20230317")
        (data / "1.dcm").unlink()
        index_folder(store, data)
        after = all_of(store)
        gone = store.patient_key("p1")
        assert after.n == 59
        assert {key: part for key, part in parts(after).items() if key in before.keys} == {
            key: part for key, part in parts(before).items() if key != gone
        }

        # Folds dealt in turn do move when anybody comes or goes: every site's folds are equally large instead.
        stayed = [key for key in before.keys if key != gone]
        assert [folds(after)[key] for key in stayed] != [folds(before)[key] for key in stayed]
        assert np.bincount(list(map(int, folds(after).values()))).tolist() == [12, 12, 12, 12, 11]
        # A campaign's do not: its cohort is the one that approval froze.
        (data / "1.dcm").touch()
        write(data / "1.dcm", "p1")
        index_folder(store, data)
        assert folds(all_of(store, before.keys)) == folds(before)
    # The same patients in another hospital are split in another way: the key decides.
    with CohortStore.open(tmp_path / "other") as other:
        index_folder(other, data)
        elsewhere, here = parts(all_of(other)), parts(after)
    moved = [elsewhere[other.patient_key(f"p{n}")] != here[store.patient_key(f"p{n}")] for n in range(60) if n != 1]
    assert sum(moved) > 10
