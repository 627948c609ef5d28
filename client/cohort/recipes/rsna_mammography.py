"""RSNA Screening Mammography Breast Cancer Detection (Kaggle, 2022): four or more views a patient.

```
train_images/<patient_id>/<image_id>.dcm
train.csv   site_id, patient_id, image_id, laterality, view, age, cancer, biopsy, invasive, BIRADS, implant, density,
            machine_id, difficult_negative_case (a row an image)
```

The files say hardly more than PatientID and pixels: age, side and view come from the table, the modality is MG.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from fedage.client.cohort.reasons import Reason
from fedage.client.cohort.recipes._base import FactsByImage, Recipe, ages, digest, table
from fedage.client.cohort.table_facts import TableFacts
from fedage.client.site.mapping import Mapped, OutcomeColumns

_TABLE = "train.csv"
_COLUMNS = ("patient_id", "image_id", "laterality", "view", "age", "machine_id")


def _key(path: PurePosixPath) -> str:
    return path.stem if path.suffix == ".dcm" else ""


def _read_table_facts(root: Path) -> FactsByImage:
    rows = table(root, _TABLE, _COLUMNS)
    facts_by_image: dict[str, TableFacts | Reason] = {
        image: TableFacts(
            patient_id=patient,
            study_uid=patient,
            age=age,
            sex="F",
            manufacturer=f"machine {machine}" if machine else "",
            modality="MG",
            view=view,
            laterality=laterality,
        )
        if age
        else Reason.NO_AGE
        for patient, image, laterality, view, machine, age in zip(
            *(rows[name] for name in ("patient_id", "image_id", "laterality", "view", "machine_id")),
            ages(rows["age"]),
            strict=True,
        )
    }
    return FactsByImage(facts_by_image, _key, digest(root, _TABLE))


RECIPE = Recipe(
    name="rsna-mammography",
    title="RSNA Screening Mammography Breast Cancer Detection",
    columns_from="the header line of train.csv as repositories for the Kaggle competition quote it",
    table_facts=_read_table_facts,
    outcomes=(
        _TABLE,
        OutcomeColumns(
            id="patient_id",
            columns={
                "cancer": Mapped(column="cancer", rows="max"),
                "healthy": Mapped(column="cancer", values={"0": 1.0, "1": 0.0}, rows="min"),
                "invasive": Mapped(column="invasive", rows="max"),
                "implant": Mapped(column="implant", rows="max"),
            },
        ),
    ),
)
