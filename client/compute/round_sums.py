"""What leaves of a round's validation: sums in which no patient makes a kink, as a coordinator may choose the models.

Attack: models of a run that differ by a constant alone. Σ|e| and the count of errors within 5 years change their slope
where the constant passes a patient's error, and Σŷ and ΣΩŷ where it cuts one more prediction to 0 or 130 years: between
two rounds that is one patient's age, or age and feature, though each round's sums are over many. Rule, under disclosure
control: Σ|e| of a round is that of normal errors with the same mean and standard deviation, which Σe and Σe² tell
anyway; the count within 5 years is not told; and nothing is told of a round in which any prediction is cut. The
finished model is judged exactly, once a run. Residual risk: that some prediction is cut, and bends that a network makes
itself; how sharp and how far those reach is what the bounds on a run's models limit (`fedage.common.networks.steps`).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from fedage.client.compute.contribute import Contributions
from fedage.common.analyses.columns import MAX_AGE_YEARS
from fedage.common.analyses.evaluation.metrics import Evaluation
from fedage.common.estimators.base import PREDICTED_YEARS, Estimator
from fedage.common.statistics.statistic import FloatArray

CUT = "cut-predictions"
_ROUNDING_YEARS = 1e-3
"""What a 32-bit network may be off a bound that it cuts to."""


def of_a_round(
    contributions: Contributions, analysis: Evaluation, *, estimator: Estimator, predicted: FloatArray
) -> Contributions:
    """The sums of a round without what has a kink at a patient; without any where a prediction (n,) is cut."""
    if analysis.name not in contributions.sums:
        return contributions
    if _is_any_cut(estimator, predicted):
        detail = "the model predicts an age at the bounds that predictions are cut to; such a round is not judged"
        withheld = {**contributions.withheld, analysis.name: {"rule": CUT, "detail": detail}}
        sums = {step: vector for step, vector in contributions.sums.items() if step != analysis.name}
        return replace(contributions, sums=sums, withheld=withheld, patients=0, smallest_cell=None)
    return replace(
        contributions,
        sums={**contributions.sums, analysis.name: analysis.without_kinks(contributions.sums[analysis.name])},
    )


def _is_any_cut(estimator: Estimator, predicted: FloatArray) -> bool:
    low, high = 0.0, MAX_AGE_YEARS
    for output in estimator.outputs:
        if output.column == PREDICTED_YEARS:
            low, high = output.lower, output.upper
    return bool(np.any((predicted <= low + _ROUNDING_YEARS) | (predicted >= high - _ROUNDING_YEARS)))
