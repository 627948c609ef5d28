"""RSNA Pneumonia Detection Challenge (Kaggle, 2018): chest radiographs, one a patient.

```
stage_2_train_images/<patientId>.dcm
stage_2_train_labels.csv          patientId, x, y, width, height, Target (a row a box)
stage_2_detailed_class_info.csv   patientId, class (Normal, No Lung Opacity / Not Normal, Lung Opacity)
```

The files hold PatientID, PatientSex, ViewPosition and PatientAge as bare years ("51").
"""

from __future__ import annotations

from pathlib import Path

from fedage.client.cohort.reasons import Reason
from fedage.client.cohort.recipes._base import Recipe
from fedage.client.cohort.table_facts import TableFacts
from fedage.client.site.mapping import Mapped, OutcomeColumns


class _BareAges:
    """Ages in the files are years, whatever they do not say."""

    digest = "-bare-ages"

    def facts_for(self, _path: str) -> TableFacts | Reason:
        """The same of every file."""
        return TableFacts(bare_age_years=True)


def _read_table_facts(_root: Path) -> _BareAges:
    return _BareAges()


RECIPE = Recipe(
    name="rsna-pneumonia",
    title="RSNA Pneumonia Detection Challenge",
    columns_from="scripts and notebooks written for the Kaggle competition that name the columns of its tables",
    table_facts=_read_table_facts,
    outcomes=(
        "stage_2_detailed_class_info.csv",
        OutcomeColumns(
            id="patientId",
            columns={
                "healthy": Mapped(column="class", values={"Normal": 1.0}, others=0.0, rows="min"),
                "pneumonia": Mapped(column="class", values={"Lung Opacity": 1.0}, others=0.0, rows="max"),
            },
        ),
    ),
)
