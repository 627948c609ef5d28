"""Recipes: each on a small tree made here, with the column names of its data set. None has seen the data set itself."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

from fedage.client.cli.index import SiteIndex, index_into
from fedage.client.cohort.recipes import NAMES, recipe
from fedage.client.cohort.store.query import Selection, select
from fedage.client.cohort.store.store import CohortStore
from fedage.client.site.home import SiteConfig
from fedage.client.site.mapping import RecipeName
from fedage.common.errors import FedAgeError
from tests.client.cohort.bids.test_bids import volume
from tests.client.cohort.dicoms import write

BARE: dict[str, Any] = {"PatientBirthDate": None, "StudyDate": None}
"""Elements that public releases leave out."""
MG: dict[str, Any] = {**BARE, "Modality": "MG", "ViewPosition": None, "PatientSex": None}


def lines(path: Path, *rows: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")


def rsna_pneumonia(root: Path) -> dict[str, tuple[float, dict[str, float]]]:
    for name, age in (("0004cfab", "51"), ("000924cf", "19"), ("00313ee0", "148"), ("00322d4d", "")):
        write(root / f"stage_2_train_images/{name}.dcm", name, PatientAge=age, **BARE)
    lines(
        root / "stage_2_detailed_class_info.csv",
        *("patientId,class", "0004cfab,No Lung Opacity / Not Normal", "000924cf,Normal", "00313ee0,Normal"),
    )
    lines(root / "stage_2_train_labels.csv", "patientId,x,y,width,height,Target", "0004cfab,,,,,0", "000924cf,,,,,0")
    return {
        "0004cfab": (51.5, {"healthy": 0.0, "pneumonia": 0.0}),
        "000924cf": (19.5, {"healthy": 1.0, "pneumonia": 0.0}),
    }


def rsna_mammography(root: Path) -> dict[str, tuple[float, dict[str, float]]]:
    rows = [
        "site_id,patient_id,image_id,laterality,view,age,cancer,biopsy,invasive,BIRADS,implant,density,machine_id,"
        "difficult_negative_case"
    ]
    for patient, image, side, view, age, cancer in (
        ("10006", "462822612", "L", "CC", "61.0", 0),
        ("10006", "1459541791", "R", "MLO", "61.0", 1),
        ("10011", "220375232", "R", "CC", "55.0", 0),
        ("10025", "1", "R", "CC", "", 0),
    ):
        rows.append(f"2,{patient},{image},{side},{view},{age},{cancer},0,{cancer},,0,,29,False")
        about = {**MG, "Modality": None, "Manufacturer": None}
        write(root / f"train_images/{patient}/{image}.dcm", patient, **about)
    lines(root / "train.csv", *rows)
    write(root / "train_images/9/999.dcm", "9", **MG)
    return {
        "10006": (61.5, {"cancer": 1.0, "healthy": 0.0, "invasive": 1.0, "implant": 0.0}),
        "10011": (55.5, {"cancer": 0.0, "healthy": 1.0, "invasive": 0.0, "implant": 0.0}),
    }


def vindr(root: Path) -> dict[str, tuple[float, dict[str, float]]]:
    rows = ["study_id,series_id,image_id,laterality,view_position,height,width,breast_birads,breast_density,split"]
    tags = ["SOP Instance UID,Series Instance UID,Patient's Age,Manufacturer"]
    for study, series, age, grades in (
        ("b8d273e8", "dd9ce3288", "053Y", (4, 2)),
        ("8269f5971", "d931832a", "044Y", (1, 1)),
        ("d8125545", "5bb5ee86", "", (1, 1)),
    ):
        for side, grade in zip("LR", grades, strict=True):
            for view in ("CC", "MLO"):
                image = f"{study}{side}{view}"
                rows.append(f"{study},{series},{image},{side},{view},3518,2800,BI-RADS {grade},DENSITY C,training")
                tags.append(f"{image},{series},{age},SIEMENS")
                write(root / f"images/{study}/{image}.dicom", None, **MG)  # type: ignore[arg-type]
    lines(root / "breast-level_annotations.csv", *rows)
    lines(root / "metadata.csv", *tags)
    lines(root / "finding_annotations.csv", "image_id,study_id")
    return {
        "b8d273e8": (53.5, {"birads": 4.0, "healthy": 0.0, "density": 3.0}),
        "8269f5971": (44.5, {"birads": 1.0, "healthy": 1.0, "density": 3.0}),
    }


def embed(root: Path) -> dict[str, tuple[float, dict[str, float]]]:
    images = [
        "cohort_num,empi_anon,acc_anon,anon_dicom_path,FinalImageType,ImageLateralityFinal,ViewPosition,Manufacturer,"
        "PatientSex"
    ]
    for patient, exam, name, kind in (
        ("60696029", "7480172873169651", "a", "2D"),
        ("60696029", "7480172873169651", "b", "cview"),
        ("69911587", "6893410034577510", "c", "2D"),
        ("11111111", "2222222222222222", "d", "2D"),
    ):
        path = f"cohort_1/{patient}/1.2/1.3/{name}.dcm"
        images.append(f"1,{patient},{exam},/mnt/NAS2/mammo/anon_dicom/{path},{kind},L,MLO,HOLOGIC,F")
        write(root / "images" / path, "anonymous", **MG)
    lines(root / "tables/EMBED_OpenData_metadata.csv", *images)
    lines(
        root / "tables/EMBED_OpenData_clinical.csv",
        "empi_anon,acc_anon,age_at_study,asses,tissueden,path_severity",
        "60696029,7480172873169651,58.75,A,2.0,",
        "60696029,7480172873169651,58.75,S,3.0,1.0",
        "69911587,6893410034577510,47.03,N,1.0,",
    )
    return {
        "60696029": (58.75, {"cancer": 1.0, "healthy": 0.0, "density": 3.0}),
        "69911587": (47.03, {"cancer": 0.0, "healthy": 1.0, "density": 1.0}),
    }


def cmmd(root: Path) -> dict[str, tuple[float, dict[str, float]]]:
    for patient, age in (("D1-0001", "044Y"), ("D2-0143", "061Y")):
        for number, side in enumerate("LR", start=1):
            path = root / f"CMMD/{patient}/07-18-2010-79377/1.0-70244/1-{number}.dcm"
            write(path, patient, PatientAge=age, ImageLaterality=side, **{**MG, "ViewPosition": None})
    lines(
        root / "CMMD_clinicaldata_revision.csv",
        "ID1,LeftRight,Age,number,abnormality,classification,subtype",
        "D1-0001,R,44,2,calcification,Benign,",
        "D2-0143,L,61,2,both,Malignant,Luminal A",
        "D2-0143,R,61,2,mass,Benign,",
    )
    return {
        "D1-0001": (44.5, {"malignant": 0.0, "mass": 0.0}),
        "D2-0143": (61.5, {"malignant": 1.0, "mass": 1.0}),
    }


def openbhb(root: Path) -> dict[str, tuple[float, dict[str, float]]]:
    columns = "participant_id study sex age site diagnosis tiv csfv gmv wmv magnetic_field_strength acquisition_setting"
    lines(
        root / "participants.tsv",
        "\t".join(columns.split()) + "\tsiteXacq\tsplit",
        "\t".join(
            ["100053248969", "3", "F", "64.53", "4", "control", "1500.5", "300", "650", "500", "3.0", "0", "6", "train"]
        ),
        "\t".join(
            [
                "100064352588",
                "1",
                "M",
                "21.2",
                "7",
                "control",
                "1400.5",
                "300",
                "650",
                "500",
                "1.5",
                "0",
                "6",
                "external_test",
            ]
        ),
    )
    for split, name in (("train", "100053248969"), ("val", "100064352588")):
        volume(root / f"{split}/rawdata/sub-{name}/ses-1/sub-{name}_T1w.nii.gz")
    (root / "train/derivatives/sub-100053248969").mkdir(parents=True)
    field = "magnetic_field_strength"
    return {
        "sub-100053248969": (
            64.53,
            {"healthy": 1.0, "tiv": 1500.5, "study": 3.0, "acquisition_site": 4.0, field: 3.0},
        ),
        "sub-100064352588": (
            21.2,
            {"healthy": 1.0, "tiv": 1400.5, "study": 1.0, "acquisition_site": 7.0, field: 1.5},
        ),
    }


MADE: dict[str, tuple[Callable[[Path], dict[str, tuple[float, dict[str, float]]]], str, dict[str, int]]] = {
    "rsna-pneumonia": (rsna_pneumonia, "CR", {"implausible-age": 1, "no-age": 1, "not-dicom": 2}),
    "rsna-mammography": (rsna_mammography, "MG", {"no-age": 1, "not-in-table": 1, "not-dicom": 1}),
    "vindr": (vindr, "MG", {"no-age": 4, "not-dicom": 3}),
    "embed": (embed, "MG", {"derived-object": 1, "no-age": 1, "not-dicom": 2}),
    "cmmd": (cmmd, "MG", {"not-dicom": 1}),
    "openbhb": (openbhb, "MR", {}),
}


def index(home: Path, root: Path, name: str) -> SiteIndex:
    config = SiteConfig.model_validate({"name": "x", "coordinator": "example.org:1", "data": str(root), "recipe": name})
    with CohortStore.open(home, key=bytes(range(32))) as store:
        return index_into(store, config, file=home / "site.toml")


def selection(home: Path, modality: str) -> Selection:
    with CohortStore.open(home) as store:
        return select(store, modalities=(modality,), age_min_years=0, age_max_years=130)


def test_every_recipe_is_known_and_says_where_its_columns_come_from() -> None:
    assert set(MADE) == set(NAMES) == set(get_args(RecipeName))
    for name in NAMES:
        assert recipe(name).name == name
        assert len(recipe(name).columns_from) > 30


@pytest.mark.filterwarnings("ignore:Invalid value for VR AS")  # a bare age, as the data set has it
@pytest.mark.parametrize("name", NAMES)
def test_a_small_tree_comes_in_with_ages_and_diagnoses(tmp_path: Path, name: str) -> None:
    make, modality, rejected = MADE[name]
    expected = make(tmp_path / "data")
    report = index(tmp_path / "home", tmp_path / "data", name)
    assert report.images is not None
    assert report.images.rejected == rejected
    found = selection(tmp_path / "home", modality)
    with CohortStore.open(tmp_path / "home") as store:
        rows = {patient: found.keys.index(store.patient_key(patient)) for patient in expected}
    assert found.n == len(expected)
    for patient, (age, outcomes) in expected.items():
        assert found.age_years[rows[patient]] == pytest.approx(age)
        for column, value in outcomes.items():
            assert found.outcomes[column][rows[patient]] == value, (patient, column)
    again = index(tmp_path / "home", tmp_path / "data", name)
    assert again.images is not None
    assert (again.images.new, again.images.patients) == (0, len(expected))


def test_sides_views_and_sexes_come_from_the_table(tmp_path: Path) -> None:
    rsna_mammography(tmp_path / "data")
    index(tmp_path / "home", tmp_path / "data", "rsna-mammography")
    found = selection(tmp_path / "home", "MG")
    assert np.all(found.is_male == 0)
    assert sorted(len(images) for images in found.images) == [1, 2]
    told = {}
    with CohortStore.open(tmp_path / "home") as store, store.reading() as connection:
        for path, laterality, view in connection.execute("SELECT path, laterality, view FROM images"):
            told[Path(store.path_of(path)).stem] = (laterality, view)
    assert told == {"462822612": ("L", "CC"), "1459541791": ("R", "MLO"), "220375232": ("R", "CC")}


def test_a_changed_table_is_noticed(tmp_path: Path) -> None:
    rsna_mammography(tmp_path / "data")
    index(tmp_path / "home", tmp_path / "data", "rsna-mammography")
    table = tmp_path / "data/train.csv"
    table.write_text(table.read_text().replace("55.0", "56.0"))
    index(tmp_path / "home", tmp_path / "data", "rsna-mammography")
    assert sorted(selection(tmp_path / "home", "MG").age_years) == [56.5, 61.5]


@pytest.mark.parametrize(
    ("name", "missing"), [("vindr", "metadata.csv"), ("embed", "tables/EMBED_OpenData_metadata.csv")]
)
def test_a_missing_or_another_table_is_refused(tmp_path: Path, name: str, missing: str) -> None:
    MADE[name][0](tmp_path / "data")
    (tmp_path / "data" / missing).write_text("something,else\n1,2\n")
    with pytest.raises(FedAgeError, match=r"has no column .*is it the table of this recipe's data set"):
        index(tmp_path / "home", tmp_path / "data", name)
    (tmp_path / "data" / missing).unlink()
    with pytest.raises(FedAgeError, match=r"cannot be read .*put the data set's own table there"):
        index(tmp_path / "home", tmp_path / "data", name)
