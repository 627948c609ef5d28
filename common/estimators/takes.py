"""What images an estimator takes: a statement that a site checks against its index before any pixel is read.

Values are those of the cohort store: views as DICOM's defined terms (`PA`, `LL`, `CC`, `MLO`), body parts in capitals
(`CHEST`, `BREAST`), intents `PRESENTATION` and `PROCESSING`; empty where the file says nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

CONTRADICTORY = "CONTRADICTORY"
"""Stands for a view or a body part of which a file says two different things."""
Tag = Literal["view", "body_part", "intent", "laterality"]


@dataclass(frozen=True, kw_only=True)
class Content:
    """What one image shows, as its header says.

    Parameters
    ----------
    special
        What makes it no ordinary view, e.g. `quality-control`, `spot`, `specimen`; sorted, blanks between.
    """

    view: str = ""
    body_part: str = ""
    intent: str = ""
    special: str = ""
    laterality: str = ""


@dataclass(frozen=True, kw_only=True)
class Takes:
    """What an estimator takes; an empty tuple takes anything.

    Parameters
    ----------
    views, body_parts, intents, lateralities
        Allowed values, those to be tried first in front; of lateralities `L`, `R` and `B`.
    may_be_unknown
        Tags that a file may lack. An image that lacks another one is not taken: nobody knows what it shows.
    special
        Special images that are taken all the same.
    """

    views: tuple[str, ...] = ()
    body_parts: tuple[str, ...] = ()
    intents: tuple[str, ...] = ()
    lateralities: tuple[str, ...] = ()
    may_be_unknown: frozenset[Tag] = frozenset()
    special: frozenset[str] = frozenset()

    def why_not(self, image: Content) -> str | None:
        """The reason code why an image is not taken; None if it is."""
        for one in image.special.split():
            if one not in self.special:
                return one
        tags: tuple[tuple[Tag, str, tuple[str, ...]], ...] = (
            ("body_part", image.body_part, self.body_parts),
            ("view", image.view, self.views),
            ("intent", image.intent, self.intents),
            ("laterality", image.laterality, self.lateralities),
        )
        for tag, value, allowed in tags:
            if not allowed or value in allowed or (not value and tag in self.may_be_unknown):
                continue
            kind = "unknown" if not value else "contradictory" if value == CONTRADICTORY else "other"
            return f"{kind}-{tag.replace('_', '-')}"
        return None

    def order(self, image: Content) -> tuple[int, int]:
        """Sorts the images of an exam, the one to try first in front: by intent, then by view.

        An image that does not say its intent (computed radiography has no such tag) is as good as the preferred one.
        """
        return (
            self.intents.index(image.intent) if image.intent in self.intents else 0,
            self.views.index(image.view) if image.view in self.views else len(self.views),
        )
