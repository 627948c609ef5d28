"""Facts about an image from a data set's tables, which override those in its file."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Protocol

from fedage.client.cohort.ages import Age
from fedage.client.cohort.reasons import Reason


@dataclass(frozen=True, kw_only=True)
class TableFacts:
    """Facts that override the file's own; where a field is empty or None, the file's value is used.

    Parameters
    ----------
    bare_age_years
        Whether a `PatientAge` without a unit is one in completed years.
    view_if_unknown
        View of a radiograph whose file names none.
    """

    patient_id: str = field(default="", repr=False)
    study_uid: str = field(default="", repr=False)
    age: Age | None = None
    sex: str | None = None
    manufacturer: str = ""
    modality: str = ""
    view: str = ""
    laterality: str = ""
    bare_age_years: bool = False
    view_if_unknown: str = ""


NO_FACTS = TableFacts()


class TableFactsSource(Protocol):
    """A data set's tables; may be used from several threads."""

    @property
    def digest(self) -> str:
        """Changes when any fact has changed."""

    def facts_for(self, path: str) -> TableFacts | Reason:
        """Facts for the file at this path below the root, or why it is out."""


class NoTableFacts:
    """No tables: all facts are in the files."""

    digest = ""

    def facts_for(self, _path: str) -> TableFacts | Reason:
        """No facts."""
        return NO_FACTS


class WithSiteView:
    """Another source's facts, with the view that the site gives for radiographs that name none."""

    def __init__(self, source: TableFactsSource, view: str) -> None:
        self._source, self._view = source, view

    @property
    def digest(self) -> str:
        """Changes with the other source's, and with the view."""
        return f"{self._source.digest}-view-{self._view}"

    def facts_for(self, path: str) -> TableFacts | Reason:
        """Facts for the file at this path below the root, or why it is out."""
        facts = self._source.facts_for(path)
        return facts if isinstance(facts, Reason) else replace(facts, view_if_unknown=self._view)
