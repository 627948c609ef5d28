"""Why privacy for each patient is not possible with an estimator's options: the reason that is the right one, alone."""

from __future__ import annotations

from typing import Any

import pytest

from fedage.common.campaign_file._private import privacy_problems
from fedage.common.estimators import make

COUPLED, NORMALISED = "whose loss relates the samples", "batch normalisation mixes the patients"


@pytest.mark.parametrize(
    ("name", "options", "reasons"),
    [
        ("breast-4view", {"triplet": 0.0}, [NORMALISED]),
        ("breast-4view", {"draws": 0}, [NORMALISED]),
        ("breast-4view", {"norm": "group"}, [COUPLED]),
        ("breast-4view", {}, [COUPLED, NORMALISED]),
        ("breast-4view", {"triplet": 0.0, "norm": "group"}, []),
        ("chest-ca", {"norm": "batch"}, [NORMALISED]),
        ("brain-clinical2d", {}, [NORMALISED]),
        ("brain-clinical2d", {"norm": "group"}, []),
        ("brain-sfcn", {}, [NORMALISED]),
        ("brain-sfcn", {"norm": "group"}, []),
    ],
)
def test_a_refusal_gives_the_reason_that_holds_and_its_mend(
    name: str, options: dict[str, Any], reasons: list[str]
) -> None:
    said = [problem.message for problem in privacy_problems(make(name, options), mode="sample")]
    assert len(said) == len(reasons)
    mends = {COUPLED: "the weight 0 in estimator.options", NORMALISED: 'estimator.options.norm = "group"'}
    for reason in reasons:
        assert sum(reason in one and mends[reason] in one for one in said) == 1
