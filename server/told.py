"""What a site tells beside its arrays, type-checked and bounded: a site's answer is a stranger's text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

Code = Annotated[str, Field(max_length=80)]
Count = Annotated[int, Field(ge=0, le=100_000_000)]
MaybeCount = Count | None


class Reason(BaseModel):
    """Why a contribution was withheld."""

    model_config = ConfigDict(frozen=True, strict=True)

    rule: Code
    detail: Annotated[str, Field(max_length=600)]

    def __str__(self) -> str:
        return f"{self.rule}: {self.detail}"


class Told(BaseModel):
    """The `info` of a reply; which parts are there depends on the request. Unknown parts are ignored."""

    model_config = ConfigDict(frozen=True, strict=True, allow_inf_nan=False)

    patients: MaybeCount = None
    parts: dict[Code, MaybeCount] = Field(default_factory=dict, max_length=64)
    excluded: dict[Code, MaybeCount] = Field(default_factory=dict, max_length=64)
    rejected_files: dict[Code, MaybeCount] = Field(default_factory=dict, max_length=64)
    rejected_samples: dict[Code, MaybeCount] = Field(default_factory=dict, max_length=64)
    device: Code = ""
    features: list[Annotated[str, Field(max_length=200)]] = Field(default_factory=list, max_length=100_000)
    n: Count = 0
    loss: float = 0.0
    seconds: float = 0.0
    withheld: dict[Code, Reason] = Field(default_factory=dict, max_length=1000)

    @classmethod
    def of(cls, info: Mapping[str, Any]) -> Told:
        """Check a reply's info.

        Raises
        ------
        pydantic.ValidationError
            A ValueError, if a part is not of its form.
        """
        return cls.model_validate(dict(info))
