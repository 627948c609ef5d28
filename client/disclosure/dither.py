"""Noise on what a model computes of a patient, so that no sum over it has digits that a coordinator can read.

Attack: a sum of 64-bit numbers has 16 digits, and a model may be made so that the last of them are one patient's age
(`fedage.common.statistics.influence_levels`). Rule: a deployed site adds to each value normal noise of at most a
thousandth of the column's standard deviation, about .01 year of a predicted age. It follows from the site's own key,
the patient and the value: the same prediction has the same noise in every step, run and campaign, so that asking again
averages nothing. An error's variance changes by a millionth. Residual risk: models that differ by a hair have other
noise each, which averages, as far as the policy lets campaigns and runs be asked for.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from statistics import NormalDist

import numpy as np

from fedage.common.statistics.influence_levels import noise_sd_of
from fedage.common.statistics.statistic import FloatArray

_NORMAL = NormalDist()
_STEPS = 2**53


def dither_of(column: str, values: FloatArray, *, patients: Sequence[str], secret: bytes) -> FloatArray:
    """The noise (n,) of a column's values (n,); 0 where a value is missing or all are the same.

    Parameters
    ----------
    patients
        Keyed hashes of the patients, in the order of the rows.
    secret
        The site's own.
    """
    noise, sd = np.zeros(values.size), noise_sd_of(values)
    if sd == 0:
        return noise
    key = hmac.digest(secret, b"dither " + column.encode(), "sha256")
    for row in np.flatnonzero(np.isfinite(values)).tolist():
        told = patients[row].encode() + np.float64(values[row]).astype("<f8").tobytes()
        drawn = int.from_bytes(hmac.digest(key, told, hashlib.sha256)[:8], "little") >> 11
        noise[row] = sd * _NORMAL.inv_cdf((drawn + 0.5) / _STEPS)
    return noise
