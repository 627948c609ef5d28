"""What a data set's tables tell of an image that its file does not, or tells worse."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Protocol

from fedage.client.cohort.ages import Age
from fedage.client.cohort.reasons import Reason


@dataclass(frozen=True, kw_only=True)
class TableFacts:
    """Facts that stand over the file's own; what is empty or None is left to the file.

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
    """A data set's tables, ready to be asked; from several threads."""

    @property
    def digest(self) -> str:
        """Changes when anything that may be told has changed."""

    def facts_for(self, path: str) -> TableFacts | Reason:
        """What is told of the file at this path below the root, or why it is out."""


class NoTableFacts:
    """Tells nothing: everything is in the files."""

    digest = ""

    def facts_for(self, _path: str) -> TableFacts | Reason:
        """Nothing."""
        return NO_FACTS


class WithSiteView:
    """Tells what another tells, and the view of radiographs that name none, as the site says of its whole folder."""

    def __init__(self, source: TableFactsSource, view: str) -> None:
        self._source, self._view = source, view

    @property
    def digest(self) -> str:
        """Changes with the other's, and with the view."""
        return f"{self._source.digest}-view-{self._view}"

    def facts_for(self, path: str) -> TableFacts | Reason:
        """What is told of the file at this path below the root, or why it is out."""
        facts = self._source.facts_for(path)
        return facts if isinstance(facts, Reason) else replace(facts, view_if_unknown=self._view)
