"""CMMD, the Chinese Mammography Database (TCIA): one exam a patient, benign or malignant by biopsy.

```
CMMD/<ID1>/<study>/<series>/1-<n>.dcm
CMMD_clinicaldata_revision.csv   ID1, LeftRight, Age, number, abnormality, classification, subtype (a row a breast;
                                 published as .xlsx: save it as CSV in UTF-8)
```

The files hold PatientID, which is ID1, PatientAge and ImageLaterality. Nobody in the data set is free of a finding, so
`malignant` is the diagnosis and no column tells who is healthy.
"""

from __future__ import annotations

from fedage.client.cohort.recipes._base import Recipe
from fedage.client.site.mapping import Mapped, OutcomeColumns

RECIPE = Recipe(
    name="cmmd",
    title="Chinese Mammography Database",
    columns_from="scripts written for the TCIA release that name the columns of its clinical table",
    outcomes=(
        "CMMD_clinicaldata_revision.csv",
        OutcomeColumns(
            id="ID1",
            columns={
                "malignant": Mapped(column="classification", values={"Malignant": 1.0, "Benign": 0.0}, rows="max"),
                "mass": Mapped(
                    column="abnormality", values={"mass": 1.0, "both": 1.0, "calcification": 0.0}, rows="max"
                ),
            },
        ),
    ),
)
