"""What a site tells beside its arrays, type-checked and bounded: a site's answer is a stranger's text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from fedage.common.protocol.messages import printable

Code = Annotated[str, Field(max_length=80), AfterValidator(printable)]
Count = Annotated[int, Field(ge=0, le=100_000_000)]
MaybeCount = Count | None
MessageKind = Literal["describe", "train", "evaluate", "analyse"]

_ESSENTIAL = frozenset({"patients", "n", "features", "audit_key", "kinds"})
"""Without one of these an answer cannot be used, or could be taken for another site's or another kind of site's."""
_MISTAKES_READ = 200


class SiteInfoMalformed(ValueError):
    """What a site told cannot be used; the message names the part."""


class Reason(BaseModel):
    """Why a contribution was withheld."""

    model_config = ConfigDict(frozen=True, strict=True)

    rule: Code
    detail: Annotated[str, Field(max_length=600), AfterValidator(printable)]

    def __str__(self) -> str:
        return f"{self.rule}: {self.detail}"


class Privacy(BaseModel):
    """What a site's updates of a campaign cost its patients until now, and by which noise.

    By which noise is not told where sums are hidden: it follows from how many patients the site brings.
    """

    model_config = ConfigDict(frozen=True, strict=True, allow_inf_nan=False)

    epsilon: Annotated[float, Field(ge=0)]
    delta: Annotated[float, Field(gt=0, lt=1)]
    noise_multiplier: Annotated[float, Field(gt=0)] | None = None
    sampling_rate: Annotated[float, Field(gt=0, le=1)] | None = None
    steps: Count | None = None
    accountant: Code = ""


class SiteInfo(BaseModel):
    """The `info` of a reply; which parts are there depends on the request. Unknown parts are ignored.

    `audit_key` (hexadecimal, 32 raw bytes) and `kinds` come with the answer to an offer; None in simulation.
    """

    model_config = ConfigDict(frozen=True, strict=True, allow_inf_nan=False)

    patients: MaybeCount = None
    minimum_count: MaybeCount = None
    parts: dict[Code, MaybeCount] = Field(default_factory=dict, max_length=64)
    excluded: dict[Code, MaybeCount] = Field(default_factory=dict, max_length=64)
    rejected_files: dict[Code, MaybeCount] = Field(default_factory=dict, max_length=64)
    rejected_samples: dict[Code, MaybeCount] = Field(default_factory=dict, max_length=64)
    device: Code = ""
    features: list[Annotated[str, Field(max_length=200)]] = Field(default_factory=list, max_length=100_000)
    n: Count = 0
    loss: float | None = None
    seconds: float = 0.0
    clipped: bool = False
    batch_parts: Count = 1
    steps: Count = 0
    control_share: Annotated[float, Field(ge=0, le=1)] = 1.0
    privacy: Privacy | None = None
    withheld: dict[Code, Reason] = Field(default_factory=dict, max_length=1000)
    audit_key: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None = None
    kinds: list[MessageKind] | None = Field(default=None, max_length=4)

    @property
    def trains(self) -> bool:
        """Whether the site's policy answers TRAIN; a site that says nothing of kinds answers all."""
        return self.kinds is None or "train" in self.kinds

    @classmethod
    def of(cls, info: Mapping[str, Any]) -> tuple[SiteInfo, tuple[str, ...]]:
        """Check a reply's info; an odd entry is left out where the rest says the same without it.

        Returns
        -------
        told, left_out
            `left_out` names the parts of which something was left out, for whoever follows the run.

        Raises
        ------
        ToldMalformed
            If a part is not of its form that the answer cannot do without.
        """
        values = dict(info)
        try:
            return cls.model_validate(values), ()
        except ValidationError as error:
            mistakes = error.errors(include_url=False, include_context=False, include_input=False)
        left_out: dict[str, None] = {}
        for mistake in mistakes[:_MISTAKES_READ]:
            part, *inside = map(str, mistake["loc"])
            if part in _ESSENTIAL:
                raise SiteInfoMalformed(f"{part} is not of its form")
            entries = values.get(part)
            if inside and isinstance(entries, dict):
                values[part] = {name: value for name, value in entries.items() if name != inside[0]}
            else:
                values.pop(part, None)
            left_out[part] = None
        try:
            return cls.model_validate(values), tuple(left_out)
        except ValidationError:
            raise SiteInfoMalformed("too much of it is not of its form") from None
