"""OpenBHB, the Open Big Healthy Brains: T1-weighted brain volumes of healthy people from ten studies.

```
participants.tsv   participant_id (without sub-), study, sex, age, site, diagnosis, tiv, csfv, gmv, wmv,
                   magnetic_field_strength, acquisition_setting, siteXacq, split
train/rawdata/sub-<participant_id>/ses-1/sub-<participant_id>_T1w.nii.gz
val/rawdata/sub-<participant_id>/ses-1/sub-<participant_id>_T1w.nii.gz
```

The preprocessed arrays under `derivatives` are not read.
"""

from __future__ import annotations

from fedage.client.cohort.indexing.bids import PARTICIPANTS, BidsLayout
from fedage.client.cohort.recipes._base import Recipe
from fedage.client.site.mapping import Mapped, OutcomeColumns

RECIPE = Recipe(
    name="openbhb",
    title="OpenBHB",
    columns_from="a description of the public repository's files and columns, and a loader written for it",
    bids=BidsLayout(bases=("train/rawdata", "val/rawdata"), anat="."),
    outcomes=(
        PARTICIPANTS,
        OutcomeColumns(
            id="participant_id",
            columns={
                "healthy": Mapped(column="diagnosis", values={"control": 1.0}, others=0.0),
                "tiv": "tiv",
                "study": "study",
                "acquisition_site": "site",
                "magnetic_field_strength": "magnetic_field_strength",
            },
        ),
    ),
)
