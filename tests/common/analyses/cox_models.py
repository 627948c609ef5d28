"""Cox models over patients, as tests of them need them."""

import numpy as np

from fedage.common.analyses.survival.cox_by_site import CoxBySite
from fedage.common.statistics.cohort import Cohort


def by_site(covariates=("x",), **options):
    return CoxBySite("cox:test", covariates, subset=None, **options)


def patients(x, time, event, **more):
    columns = {"x": x, "time_years": time, "event": event, **more}
    return Cohort({name: np.asarray(values, dtype=float) for name, values in columns.items()})
