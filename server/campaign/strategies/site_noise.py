"""Differential privacy of a whole site: noise on the mean of the updates (McMahan et al. 2018, arXiv 1710.06963).

Each site clips its update to the L2 norm C. The coordinator adds noise once, to the mean Σ w_k Δ_k / Σ w_k, of standard
deviation σ C · max w_k / Σ w_k: by so much of C the mean changes where one site's update is replaced by zero. With
equal weights this is σ C / n, as of Flower's strategies, which take n for weights by patients too, where it is too
little. Every site that is there takes part in every round, so that ε is not lowered by sampling.

Attack: whoever gets the models, another hospital or a reader of the bundle, tells what one hospital contributed. Rule:
the noise above, under a key of the coordinator's; of another mean it is other noise, so that two of them cannot be
subtracted. Residual risk: the coordinator sees the updates without noise, and is trusted to add it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedage.common.privacy.noise import SecretRandom, key_for, noised


@dataclass(frozen=True, kw_only=True)
class SiteNoise:
    """The noise of one model's rounds.

    Parameters
    ----------
    noise_multiplier
        σ.
    clip_norm
        C, L2 norm that every update is clipped to.
    key
        32 bytes that nobody but the coordinator knows, for this campaign and model.
    learnt
        Names of the arrays that move.
    """

    noise_multiplier: float
    clip_norm: float
    key: bytes
    learnt: Collection[str]

    def added(
        self, name: str, mean: NDArray[np.float64], *, round_number: int, largest_share: float
    ) -> NDArray[np.float64]:
        """The mean of one array with its noise; `largest_share` is the largest weight over the sum of the weights."""
        if name not in self.learnt:
            return mean
        digest = hashlib.sha256(np.ascontiguousarray(mean).tobytes()).hexdigest()
        random = SecretRandom(key_for(self.key, "site", str(round_number), name, digest))
        return noised(mean, sd=self.noise_multiplier * self.clip_norm * largest_share, random=random)
