"""What noised validation errors and bias line cost beside a training with privacy for each patient.

Of a campaign's ε they would cost `privacy.validation_share` alone; the training gets what then is left of it, which is
more than the rest, as ε of several mechanisms is less than their sum. They are Gaussian mechanisms that everybody
joins: the error of the finished model, its bias line, and the errors of a model's rounds together, each at the same
noise multiplier σ, so that one round of R has σ √R. Such mechanisms together are one with 1/σ² = Σ 1/σ_k².
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from fedage.common.campaign import Campaign
from fedage.common.privacy.accountant import Mechanism, noise_for


@dataclass(frozen=True, kw_only=True)
class ValidationNoise:
    """Mechanisms by which a site's validation is told.

    Parameters
    ----------
    finished
        Of the finished model's error, and of its bias line, each once.
    of_round
        Of a round's error.
    rounds
        Of how many rounds of each model it is told.
    together
        All of them, in the kinds that a ledger charges: figures of ε computed in other kinds differ in the last digits.
    """

    finished: Mechanism
    of_round: Mechanism
    rounds: int
    together: tuple[Mechanism, ...]

    def told(self, *, rounds: int, finished: int) -> list[Mechanism]:
        """Of so many rounds' errors, and so many figures of the finished model."""
        return [self.of_round] * rounds + [self.finished] * finished


def validation_noise(campaign: Campaign, *, rounds: int, epsilon: float) -> ValidationNoise | None:
    """The noise of a campaign whose ε is this, or that of its trainings; None where the validation has none.

    Parameters
    ----------
    rounds
        Of how many rounds of each of its models the error is told.

    Raises
    ------
    NoNoise
        If no noise keeps within that share of ε.
    ChargeRefused
        If it is larger than what can be accounted for.
    """
    privacy = campaign.privacy
    if not campaign.noises_validation or privacy.delta is None:
        return None
    alone = noise_for(privacy.validation_share * epsilon, delta=privacy.delta, rate=1.0, steps=1)
    one = alone * math.sqrt(2 + (campaign.models if rounds else 0))
    finished = Mechanism(sampling_rate=1.0, noise_multiplier=one, steps=1)
    of_round = replace(finished, noise_multiplier=one * math.sqrt(max(rounds, 1)))
    all_rounds = (replace(of_round, steps=rounds * campaign.models),) if rounds else ()
    return ValidationNoise(
        finished=finished, of_round=of_round, rounds=rounds, together=(replace(finished, steps=2), *all_rounds)
    )
