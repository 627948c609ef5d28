"""VinDr-Mammo 1.0.0 (PhysioNet): four views an exam; nothing tells whether two exams are of one patient.

```
images/<study_id>/<image_id>.dicom
breast-level_annotations.csv   study_id, series_id, image_id, laterality, view_position, height, width, breast_birads,
                               breast_density, split (a row an image)
metadata.csv                   Series Instance UID, Patient's Age ("053Y"), Manufacturer and more tags
```

`Series Instance UID` of one table is `series_id` of the other. An exam counts as a patient, so the split is by exam.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from fedage.client.cohort.ages import Age, age_at_exam
from fedage.client.cohort.reasons import Reason
from fedage.client.cohort.recipes._base import FactsByImage, Recipe, digest, table
from fedage.client.cohort.table_facts import TableFacts
from fedage.client.site.mapping import Mapped, OutcomeColumns

_IMAGES, _METADATA = "breast-level_annotations.csv", "metadata.csv"
_SERIES, _AGE = "Series Instance UID", "Patient's Age"
_BIRADS = {f"BI-RADS {grade}": float(grade) for grade in range(1, 6)}


def _key(path: PurePosixPath) -> str:
    return path.stem if path.suffix in (".dicom", ".dcm") else ""


def _age(text: str) -> Age | None:
    age = age_at_exam(birth=None, exam=None, age_string=text)
    return None if isinstance(age, Reason) else age


def _read_table_facts(root: Path) -> FactsByImage:
    rows = table(root, _IMAGES, ("study_id", "series_id", "image_id", "laterality", "view_position"))
    tags = table(root, _METADATA, (_SERIES, _AGE))
    age_of = {series: age for series, text in zip(tags[_SERIES], tags[_AGE], strict=True) if (age := _age(text))}
    facts_by_image: dict[str, TableFacts | Reason] = {
        image: TableFacts(
            patient_id=study, study_uid=study, age=age, sex="F", modality="MG", view=view, laterality=laterality
        )
        if (age := age_of.get(series))
        else Reason.NO_AGE
        for study, series, image, laterality, view in zip(
            *(rows[name] for name in ("study_id", "series_id", "image_id", "laterality", "view_position")),
            strict=True,
        )
    }
    return FactsByImage(facts_by_image, _key, digest(root, _IMAGES, _METADATA))


RECIPE = Recipe(
    name="vindr",
    title="VinDr-Mammo",
    columns_from="a public description of the data set's files, and scripts that join metadata.csv by its series",
    table_facts=_read_table_facts,
    outcomes=(
        _IMAGES,
        OutcomeColumns(
            id="study_id",
            columns={
                "birads": Mapped(column="breast_birads", values=_BIRADS, rows="max"),
                "healthy": Mapped(
                    column="breast_birads", values={"BI-RADS 1": 1.0, "BI-RADS 2": 1.0}, others=0.0, rows="min"
                ),
                "density": Mapped(
                    column="breast_density",
                    values={f"DENSITY {letter}": float(grade) for grade, letter in enumerate("ABCD", start=1)},
                    rows="max",
                ),
            },
        ),
    ),
)
