"""What a line of the audit log may say: numbers, enumerations, digests and registered names, so nothing of a patient.

Names are words of letters with hyphens between them (a rule), or what the campaign file's own pattern allows (campaign
and step names, and a step only if the caller finds it among the registered ones): no field takes free text.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Any, Self

MAX_COUNT = 2**53
"""Whole numbers stay exact in every reader of JSON."""

_LATER = frozenset({"payload_sha256", "folded"})
"""Fields that lines of older logs do not have."""
_HEX_64 = re.compile(r"[0-9a-f]{64}")
_NONCE = re.compile(r"[0-9a-f]{32}")
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_STEP = re.compile(r"[a-z][a-z0-9-]{0,62}(:[a-z0-9][a-z0-9-]{0,62})?")
_RULE = re.compile(r"(?=.{1,40}\Z)[a-z]+(-[a-z]+)*")


class Direction(StrEnum):
    """Which way a line's subject went; `site` is a decision at the site itself."""

    IN = "in"
    OUT = "out"
    SITE = "site"


class Kind(StrEnum):
    """What it was: a message's kind, or something done at the site.

    `policy` is a policy file that the agent met for the first time since it started, `digest` its SHA-256 (none where
    there is no file); `index` an indexing, `patients` how many the store holds since.
    """

    DESCRIBE = "query.describe"
    TRAIN = "train"
    EVALUATE = "evaluate"
    ANALYSE = "query.analyse"
    SECURE = "query.secure"
    UNREADABLE = "unreadable"
    APPROVE = "approve"
    DECLINE = "decline"
    REVOKE = "revoke"
    POLICY = "policy"
    INDEX = "index"

    @classmethod
    def of(cls, text: str) -> Kind:
        """The kind of a message; what a site cannot know is `unreadable`."""
        known = (cls.DESCRIBE, cls.TRAIN, cls.EVALUATE, cls.ANALYSE, cls.SECURE)
        return next((kind for kind in known if kind.value == text), cls.UNREADABLE)


class Outcome(StrEnum):
    """How it ended. `again` is a stored answer sent once more; `failed` an answer that only says it failed."""

    OK = "ok"
    REFUSED = "refused"
    AGAIN = "again"
    FAILED = "failed"


class EntryRefused(ValueError):
    """A field holds what no line of the audit log may hold. The message names the field, never the value."""


@dataclass(frozen=True, kw_only=True)
class WithheldStep:
    """A registered step whose sums did not leave, and the rule that held them back."""

    step: str
    rule: str


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One line, without what the log itself adds (sequence, time, hashes, signature).

    Parameters
    ----------
    direction, kind, outcome
        What happened.
    who
        Fingerprint of the coordinator's public key (SHA-256, 64 hexadecimal digits); None if not known.
    campaign, digest
        The campaign's name, if the site knows the file, and the file's SHA-256.
    nonce
        The request's, so that a message and its answer can be paired.
    round, fold
        Of the request.
    size_bytes
        Of the message.
    payload_sha256
        Of the packed payload that left; None where none did, and in lines of older logs. Lines of releases before
        answers were signed over their bytes have `protocol.payload_digest` of the arrays.
    patients, smallest_cell
        Patients behind what left, and the smallest non-empty cell of them; None where nothing was computed.
    epsilon_micro
        ε charged for it at the data set's δ, in millionths, rounded up (`micro`).
    rule
        Which rule refused; given if and only if `outcome` is `refused`.
    steps, withheld
        Registered steps that were answered, and those that were not.
    folded
        How many messages that nobody verified this line stands for (`folding`); 0 for a line about one.
    """

    direction: Direction
    kind: Kind
    outcome: Outcome = Outcome.OK
    who: str | None = None
    campaign: str | None = None
    digest: str | None = None
    nonce: str | None = None
    round: int = 0
    fold: int = 0
    size_bytes: int = 0
    payload_sha256: str | None = None
    patients: int | None = None
    smallest_cell: int | None = None
    epsilon_micro: int = 0
    rule: str | None = None
    steps: tuple[str, ...] = ()
    withheld: tuple[WithheldStep, ...] = ()
    folded: int = 0

    def __post_init__(self) -> None:
        for name, kind in (("direction", Direction), ("kind", Kind), ("outcome", Outcome)):
            if type(getattr(self, name)) is not kind:
                raise EntryRefused(f"{name} must be a {kind.__name__}")
        for name in ("who", "digest", "payload_sha256"):
            _must_match(name, getattr(self, name), _HEX_64, optional=True)
        for name, pattern in (("nonce", _NONCE), ("campaign", _NAME)):
            _must_match(name, getattr(self, name), pattern, optional=True)
        for name in ("round", "fold", "size_bytes", "epsilon_micro", "folded"):
            _must_count(name, getattr(self, name))
        for name in ("patients", "smallest_cell"):
            if getattr(self, name) is not None:
                _must_count(name, getattr(self, name))
        _must_match("rule", self.rule, _RULE, optional=self.outcome is not Outcome.REFUSED)
        if self.rule is not None and self.outcome is not Outcome.REFUSED:
            raise EntryRefused("rule is for a refusal only")
        for step in self.steps:
            _must_match("steps", step, _STEP)
        for held in self.withheld:
            _must_match("withheld", held.step, _STEP)
            _must_match("withheld", held.rule, _RULE)

    def to_json(self) -> dict[str, Any]:
        """Plain values, every field present."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        values["steps"] = list(self.steps)
        values["withheld"] = [[held.step, held.rule] for held in self.withheld]
        return values

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Self:
        """The inverse of `to_json`; anything else raises `KeyError`, `TypeError`, `AttributeError` or `ValueError`."""
        known = {f.name: values[f.name] for f in fields(cls) if f.name in values or f.name not in _LATER}
        known["direction"] = Direction(known["direction"])
        known["kind"] = Kind(known["kind"])
        known["outcome"] = Outcome(known["outcome"])
        known["steps"] = tuple(known["steps"])
        known["withheld"] = tuple(WithheldStep(step=step, rule=rule) for step, rule in known["withheld"])
        return cls(**known)


def micro(epsilon: float) -> int:
    """ε in millionths, rounded up so that the log never understates it."""
    if not math.isfinite(epsilon) or epsilon < 0:
        raise EntryRefused("an ε charged is finite and ≥ 0")
    return math.ceil(epsilon * 1e6)


def known_digest(text: object) -> str | None:
    """The text if it is a digest: a request that is not verified yet may hold anything there."""
    return text if isinstance(text, str) and _HEX_64.fullmatch(text) else None


def known_nonce(text: object) -> str | None:
    """The text if it is a nonce."""
    return text if isinstance(text, str) and _NONCE.fullmatch(text) else None


def known_steps(steps: Iterable[str], *, registered: Collection[str]) -> tuple[str, ...]:
    """The steps asked for that the approved file registers, sorted: names that a message made up are not written."""
    return tuple(sorted(step for step in set(steps) if step in registered))


def canonical(values: dict[str, Any]) -> str:
    """JSON with sorted keys, no spaces and ASCII only: the same values are the same bytes."""
    return json.dumps(values, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def _must_match(name: str, value: object, pattern: re.Pattern[str], *, optional: bool = False) -> None:
    if value is None and optional:
        return
    if type(value) is not str or not pattern.fullmatch(value):
        raise EntryRefused(f"{name} must match {pattern.pattern}")


def _must_count(name: str, value: object) -> None:
    if type(value) is not int or not 0 <= value <= MAX_COUNT:
        raise EntryRefused(f"{name} must be a whole number from 0 to 2**53")
