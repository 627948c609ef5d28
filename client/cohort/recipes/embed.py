"""EMBED, the open release of the Emory Breast Imaging Dataset: screening and diagnostic mammograms.

```
images/cohort_<n>/<empi_anon>/<study>/<series>/<image>.dcm
tables/EMBED_OpenData_metadata.csv   empi_anon, acc_anon, anon_dicom_path, FinalImageType, ImageLateralityFinal,
                                     ViewPosition, Manufacturer, PatientSex and more (a row an image)
tables/EMBED_OpenData_clinical.csv   empi_anon, acc_anon, age_at_study, asses, tissueden, path_severity and more (a row
                                     a finding)
```

A row finds its image by the last four parts of `anon_dicom_path`; the exam is `acc_anon`. Synthesised views and
screen shots (`FinalImageType` other than 2D) are out.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from fedage.client.cohort.reasons import Reason
from fedage.client.cohort.recipes._base import FactsByImage, Recipe, ages, digest, sex, table
from fedage.client.cohort.table_facts import TableFacts
from fedage.client.site.mapping import Mapped, OutcomeColumns

_IMAGES, _CLINICAL = "tables/EMBED_OpenData_metadata.csv", "tables/EMBED_OpenData_clinical.csv"
_OF_IMAGE = (
    *("empi_anon", "acc_anon", "anon_dicom_path", "FinalImageType", "ImageLateralityFinal", "ViewPosition"),
    *("Manufacturer", "PatientSex"),
)
_PARTS = 4


def _key(path: PurePosixPath) -> str:
    return "/".join(path.parts[-_PARTS:]) if path.suffix == ".dcm" else ""


def _number(text: str) -> str:
    """An identifier that a table may hold as 123 or, where others are missing, as 123.0."""
    return text.removesuffix(".0")


def _read_table_facts(root: Path) -> FactsByImage:
    rows, exams = table(root, _IMAGES, _OF_IMAGE), table(root, _CLINICAL, ("acc_anon", "age_at_study"))
    age_of = {
        _number(exam): age
        for exam, age in zip(exams["acc_anon"], ages(exams["age_at_study"]), strict=True)
        if age is not None
    }
    facts_by_image: dict[str, TableFacts | Reason] = {}
    for patient, exam, path, image_type, laterality, view, manufacturer, sex_text in zip(
        *(rows[name] for name in _OF_IMAGE), strict=True
    ):
        key, age = _key(PurePosixPath(path)), age_of.get(_number(exam))
        if image_type.upper() != "2D":
            facts_by_image[key] = Reason.DERIVED_OBJECT
        elif age is None:
            facts_by_image[key] = Reason.NO_AGE
        else:
            facts_by_image[key] = TableFacts(
                patient_id=_number(patient),
                study_uid=_number(exam),
                age=age,
                sex=sex(sex_text),
                manufacturer=manufacturer,
                modality="MG",
                view=view,
                laterality=laterality,
            )
    return FactsByImage(facts_by_image, _key, digest(root, _IMAGES, _CLINICAL))


RECIPE = Recipe(
    name="embed",
    title="EMBED Open Data",
    columns_from="scripts and a loader written for the release that name the columns of both tables",
    table_facts=_read_table_facts,
    outcomes=(
        _CLINICAL,
        OutcomeColumns(
            id="empi_anon",
            columns={
                # 0 invasive cancer, 1 in-situ cancer, 2 high-risk lesion, and less severe ones from there on
                "cancer": Mapped(
                    column="path_severity",
                    values={"0": 1.0, "0.0": 1.0, "1": 1.0, "1.0": 1.0, "": 0.0},
                    others=0.0,
                    rows="max",
                ),
                "healthy": Mapped(column="asses", values={"N": 1.0, "B": 1.0}, others=0.0, rows="min"),
                "density": Mapped(column="tissueden", rows="max"),
            },
        ),
    ),
)
