"""`[training]` of a campaign file."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from fedage.common.campaign.fields import Norm, Table

DEADLINE_S = 3600.0


class Training(Table):
    """`[training]`: how the model is trained together."""

    strategy: Literal["fedavg", "fedprox", "fedavgm", "fedadam", "scaffold", "fedbn"] = Field(
        default="fedavg", description="how updates are aggregated; fedbn leaves batch normalisation at the sites"
    )
    local_norms: Literal["all", "statistics"] | None = Field(
        default=None,
        description="fedbn: what of batch normalisation stays at a site, all of it or its means and variances only; "
        "with the latter a site that did not train computes its own, on its images without ages; if not given, all",
    )
    weighting: Literal["patients", "equal"] = Field(
        default="patients", description="what a site's update counts by: its training patients, or the same for all"
    )
    proximal: float | None = Field(
        default=None,
        gt=0,
        le=1000,
        description="fedprox: mu of mu/2 |w - w0|², which pulls a site back to the round's model; if not given 0.01",
    )
    server_learning_rate: float | None = Field(
        default=None,
        gt=0,
        le=10,
        description="rate of the server's step; if not given 1 with fedavgm, 0.01 with fedadam",
    )
    server_momentum: float | None = Field(
        default=None, ge=0, lt=1, description="fedavgm: momentum of the server's step; if not given 0.9"
    )
    server_beta_1: float | None = Field(
        default=None, ge=0, lt=1, description="fedadam: decay of the first moment; if not given 0.9"
    )
    server_beta_2: float | None = Field(
        default=None, ge=0, lt=1, description="fedadam: decay of the second moment; if not given 0.99"
    )
    server_tau: float | None = Field(
        default=None, gt=0, le=1, description="fedadam: added to the second moment's root; if not given 0.001"
    )
    start_bundle: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = Field(
        default=None,
        description="SHA-256 of a model bundle of the same estimator and options that the rounds begin with; what "
        "comes before them is taken from it too",
    )
    rounds: int = Field(ge=1, le=10000, description="federated rounds")
    local_epochs: int = Field(default=1, ge=1, le=1000, description="passes over a site's training patients a round")
    batch_size: int = Field(default=16, ge=1, le=4096, description="patients in a batch; at least the minimum count")
    micro_batch: int | None = Field(
        default=None,
        ge=1,
        le=4096,
        description="patients computed at a time; the gradients of a batch's parts add up to its own. If not given, "
        "the whole batch, in parts only where it does not fit into memory",
    )
    precision: Literal["auto", "bfloat16", "float16", "float32"] = Field(
        default="auto",
        description="what a GPU computes layers in while it trains: bfloat16 where it has that, else float16 with "
        "scaled losses, or the one named; a CPU always float32",
    )
    optimiser: Literal["adam", "adamw", "sgd"] = Field(default="adamw", description="local optimiser")
    learning_rate: float = Field(default=1e-3, gt=0, le=10, description="local learning rate in the first round")
    final_learning_rate_fraction: float = Field(
        default=1.0, gt=0, le=1, description="the rate decays by a cosine to this fraction in the last round"
    )
    keep: Literal["last", "best"] = Field(
        default="last", description="the model of the last round, or of that with the least validation error"
    )
    patience_rounds: int | None = Field(
        default=None,
        ge=1,
        le=10000,
        description="end the rounds once the validation error has not become less for so many; if not given, never",
    )
    weight_decay: float = Field(default=0.0, ge=0, le=10, description="decoupled for adamw")
    max_step_norm: Norm | None = Field(
        default=None,
        description="how far the model moves in a round at most (L2 norm over all its parameters; a site's update is "
        "clipped to it), no more than the estimator states; if not given, what it states",
    )
    max_path_norm: Norm | None = Field(
        default=None,
        description="how far the rounds of a run move the model together, no more than the estimator states; if not "
        "given, √rounds × max_step_norm up to there",
    )
    quorum: int = Field(default=2, ge=1, le=10000, description="sites that must answer for a step to count")
    round_deadline_s: float = Field(
        default=DEADLINE_S, gt=0, le=604800, description="seconds a site has for one message"
    )
    wait_after_quorum_s: float | None = Field(
        default=None,
        ge=0,
        le=604800,
        description="seconds that a round waits for the other sites once the quorum has answered; if not given, until "
        "the deadline",
    )
    quorum_wait_s: float | None = Field(
        default=None,
        ge=0,
        le=604800,
        description="seconds that a run waits for lost sites where fewer than the quorum are there, before "
        "it fails; if not given 90, and no longer than the deadline",
    )
    finish_early: bool = Field(
        default=False,
        description="with privacy.secure_aggregation: where a site leaves for good, go on with the model of the last "
        "round; otherwise the run fails and can be resumed",
    )
