"""The tables of a BIDS data set: participants, their sex, and their age at each session.

`participants.tsv` gives one age a participant, which is that of the first session, or one for each `session_id`. The
age at another session needs an entry in `sub-*_sessions.tsv` or acquisition times; otherwise it is unknown. If all ages
of a column are whole numbers, they are completed units, and half a unit is added (as for DICOM's `PatientAge`).
"""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

from fedage.client.cohort.ages import DAYS_PER_YEAR, OLDEST_YEARS, Age, AgeSource, age_at_exam
from fedage.client.cohort.reasons import Reason
from fedage.client.cohort.table.header import columns_text, repeated_name_text
from fedage.client.cohort.table.leading_lines import separator_in
from fedage.client.cohort.table.limits import PARTICIPANTS, require_bounded
from fedage.client.cohort.table.sex import FEMALE, FOREIGN, MALE, kinds_of_words, words_problem
from fedage.client.cohort.table.units import (
    NOT_FROM_BIRTH,
    ages_problem,
    counts_from_conception,
    is_another_age,
    unlikely_zeros,
)
from fedage.common.errors import FedAgeError
from fedage.common.statistics.statistic import FloatArray
from fedage.deploy.machine import bounded

Row = Mapping[str, str]

_MISSING = frozenset(("", "n/a", "na", "nan", "none", "null", "unknown"))
_PER_YEAR = {"year": 1.0, "month": 12.0, "week": DAYS_PER_YEAR / 7, "day": DAYS_PER_YEAR}
_UNITS = {
    **dict.fromkeys(("year", "years", "yr", "yrs", "y", "a", ""), "year"),
    **dict.fromkeys(("month", "months", "mo"), "month"),
    **dict.fromkeys(("week", "weeks", "wk"), "week"),
    **dict.fromkeys(("day", "days", "d"), "day"),
}
_SOURCE = {
    "year": AgeSource.AGE_YEARS,
    "month": AgeSource.AGE_MONTHS,
    "week": AgeSource.AGE_WEEKS,
    "day": AgeSource.AGE_DAYS,
}
_NUMBER = re.compile(r"(?P<least>>=?)?\s*(?P<number>\d{1,5}(\.\d+)?)\s*(?P<cap>\+)?\s*(?P<unit>[A-Za-z]{1,6})?")
_DICOM_AGE = re.compile(r"\d{3}[DWMY]", re.ASCII)
_SEX = {"m": "M", "male": "M", "man": "M", "boy": "M", "f": "F", "female": "F", "woman": "F", "girl": "F"}
_IN_LEVELS = {
    **_SEX,
    **dict.fromkeys(("males", "men", "boys", "masc", "masculine"), "M"),
    **dict.fromkeys(("females", "women", "girls", "fem", "feminine"), "F"),
    **FOREIGN,
}
_USUAL = ("participant_id", "session_id", "filename", "age", "sex", "gender", "acq_time")
"""Column names that identify a first line as a header."""
_MAX_JSON_BYTES = 1 << 20


@dataclass(frozen=True)
class AgeColumn:
    """How the ages of one table are to be read.

    Parameters
    ----------
    unit
        `year`, `month`, `week` or `day`.
    whole
        Whether all ages are whole numbers, that is, completed units.
    is_zero_unknown
        Whether a 0 stands for "unknown": nobody else is younger than two years.
    """

    unit: str
    whole: bool
    is_zero_unknown: bool = False

    @classmethod
    def from_texts(cls, texts: Sequence[str], *, unit: str) -> AgeColumn:
        """Derive how a column's ages are to be read from all its texts."""
        is_zero_unknown = bool(unlikely_zeros(_plain_numbers(texts) / _PER_YEAR[unit]).any())
        return cls(unit, not any(_is_fraction(text) for text in texts), is_zero_unknown)

    def require_plausible(self, texts: Sequence[str], *, file: str) -> None:
        """Refuse a column with many ages above any human age: the other ages are then wrong too.

        Raises
        ------
        FedAgeError
            Naming what is wrong, and the remedy.
        """
        if problem := ages_problem(_plain_numbers(texts) / _PER_YEAR[self.unit]):
            raise FedAgeError(
                f"{file}: column 'age' {problem}, or give their unit in the JSON beside the table: "
                '"age": {"Units": "months"}'
            )

    def age(self, text: str) -> Age | Reason:
        """Read one cell: a number, perhaps with a unit (`045Y`), or a lower bound such as `89+` and `>89`."""
        if is_missing(text):
            return Reason.NO_AGE
        if _DICOM_AGE.fullmatch(text.strip()):
            return age_at_exam(birth=None, exam=None, age_string=text)
        match = _NUMBER.fullmatch(text.strip())
        unit = _UNITS.get((match["unit"] or "").casefold() or self.unit) if match else None
        if match is None or unit is None:
            return Reason.UNREADABLE_AGE
        if self.is_zero_unknown and float(match["number"]) == 0:
            return Reason.ZERO_AGE
        capped = bool(match["cap"] or match["least"])
        number = float(match["number"]) + (0.5 if self.whole and not capped else 0.0)
        years = number / _PER_YEAR[unit]
        if not 0 <= years <= OLDEST_YEARS:
            return Reason.IMPLAUSIBLE_AGE
        return Age(years=years, source=_SOURCE[unit] if self.whole else AgeSource.AGE_MONTHS, capped=capped)


def _plain_numbers(texts: Sequence[str]) -> FloatArray:
    """The cells that are numbers without a unit of their own."""
    matches = [_NUMBER.fullmatch(text.strip()) for text in texts]
    return np.array([float(match["number"]) for match in matches if match and not match["unit"]], dtype=np.float64)


def _is_fraction(text: str) -> bool:
    """Whether an age has decimals. A decimal comma is not read, but shows that the column holds fractions."""
    return "," in text or ("." in text and not text.rstrip("0").endswith("."))


def is_missing(text: str) -> bool:
    """Whether a cell is empty or a word for missing."""
    return text.strip().casefold() in _MISSING


def read_rows(path: Path, *, key: str) -> list[Row]:
    """The rows with a value in column `key`; their cells by lower-case column name.

    Raises
    ------
    FedAgeError
        If the table exceeds `limits.PARTICIPANTS`, cannot be read, lacks the column, has a column twice (capitals
        ignored), a row with too few or too many cells, or a quoted cell that spans lines.
    """
    names_as_written, lines = _header_and_lines(path)
    names = [name.strip().casefold() for name in names_as_written]
    if key not in names:
        raise FedAgeError(
            f"{path.name} has no column {key!r}, it has {columns_text(names, wanted=[key], known=[key, *_USUAL])}; "
            "rename the column of identifiers"
        )
    if repeated := repeated_name_text(names_as_written, known=[key], ignore_case=True):
        raise FedAgeError(f"{path.name} has a column twice ({repeated}); rename or drop one of them")
    rows: list[Row] = []
    n_needed = max((place for place, name in enumerate(names, start=1) if name), default=0)
    for number, line in enumerate(lines, start=2):
        cells = _cells(line, count=len(names))
        if cells is None:
            raise FedAgeError(
                f"{path.name}: line {number} has a quotation mark that opens a cell and is not closed on that line; "
                "remove it"
            )
        if any(cell.strip() for cell in cells[len(names) :]):
            raise FedAgeError(
                f"{path.name}: line {number} has more cells than the header has columns; remove the extra tab"
            )
        if line.strip() and len(cells) < n_needed:
            raise FedAgeError(
                f"{path.name}: line {number} has fewer cells than the header has columns; write n/a and a tab for each "
                "empty cell, or complete the row"
            )
        row = dict(zip(names, (cell.strip() for cell in cells), strict=False))
        if not is_missing(row.get(key, "")):
            rows.append(row)
    return rows


def column_names(path: Path) -> list[str]:
    """A table's column names, as written.

    Raises
    ------
    FedAgeError
        If the table cannot be read.
    """
    return _header_and_lines(path)[0]


def _header_and_lines(path: Path) -> tuple[list[str], list[str]]:
    """Column names, and the lines below the header."""
    require_bounded(path, PARTICIPANTS)
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            first_line, *lines = re.split(r"\r\n|\n|\r", stream.read())
            if stated_separator := separator_in(first_line):
                if stated_separator != "\t":
                    raise FedAgeError(
                        f"{path.name} says that its cells are separated by {stated_separator!r}, and BIDS separates "
                        "them by tabs; save the table again with tabs"
                    )
                first_line, *lines = lines or [""]
            return next(csv.reader([first_line], delimiter="\t"), []), lines
    except OSError as error:
        raise FedAgeError(f"{path.name} cannot be read ({error.strerror}); check its permissions") from None
    except (UnicodeDecodeError, csv.Error):
        raise FedAgeError(f"{path.name} is no table in UTF-8 with tabs; save it again in this form") from None


def _cells(line: str, *, count: int) -> list[str] | None:
    """The cells of one line of a table with `count` columns; None if a quoted cell continues on the next line.

    BIDS defines no quoting, but some programs quote every text, so an unpaired mark (`"5 ft`) is an ordinary character.
    A CSV reader would take the following participants into its cell.
    """
    plain = line.split("\t")
    try:
        cells = next(csv.reader([line], delimiter="\t", strict=True), [])
    except csv.Error:
        return plain if len(plain) == count else None
    return plain if len(plain) == count and any("\t" in cell for cell in cells) else cells


def read_description(path: Path) -> Mapping[str, Any]:
    """The JSON that describes a table's columns; empty if there is none.

    Raises
    ------
    FedAgeError
        If it exists and cannot be read: ages in months would be taken for years.
    """
    if not path.exists():
        return {}
    if not path.is_file():  # a pipe would be waited for
        raise FedAgeError(f"{path.name} is no file, and it may give the unit of ages; remove it")
    try:
        content = bounded.read_json(path, most_bytes=_MAX_JSON_BYTES, encoding="utf-8-sig")
    except (ValueError, bounded.FileTooLarge):
        content = None
    except OSError as error:
        raise FedAgeError(f"{path.name} cannot be read ({error.strerror}); check its permissions") from None
    if not isinstance(content, dict):
        raise FedAgeError(
            f"{path.name} is no JSON object in UTF-8 of at most {_MAX_JSON_BYTES >> 20} MB, and it may give the unit "
            "of ages; correct it, or remove it if the ages are years"
        )
    return content


def read_json(path: Path) -> Mapping[str, Any]:
    """A JSON object from a file; empty if there is no such file, or it cannot be read."""
    if not path.is_file():
        return {}
    try:
        content = bounded.read_json(path, most_bytes=_MAX_JSON_BYTES, encoding="utf-8-sig")
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def described(sidecar: Mapping[str, Any], column: str) -> Mapping[str, Any]:
    """A column's entry in a table's JSON, capitals ignored as in the table; empty if there is none.

    A plain text is taken as the description.

    Raises
    ------
    FedAgeError
        If it describes the column twice.
    """
    matching = [value for name, value in sidecar.items() if name.strip().casefold() == column]
    if len(matching) > 1:
        raise FedAgeError(f"the table's JSON describes the column {column!r} twice; drop one of them")
    if matching and isinstance(matching[0], str):
        return {"Description": matching[0]}
    return matching[0] if matching and isinstance(matching[0], Mapping) else {}


def age_unit(sidecar: Mapping[str, Any], *, file: str, column: str = "age") -> str:
    """The unit of ages according to a table's JSON; years if it gives none.

    Raises
    ------
    FedAgeError
        If the unit is none of years, months, weeks and days, if only the description names another unit than years,
        or if the numbers are codes of groups.
    """
    of_column = {name.strip().casefold(): value for name, value in described(sidecar, column).items()}
    levels = of_column.get("levels")
    codes = map(str, levels) if isinstance(levels, Mapping) else ()
    if any(re.fullmatch(r"\d+(\.\d*)?", code.strip()) for code in codes):
        raise FedAgeError(
            f"{file} gives Levels for {column}, so its numbers are codes of groups, not ages; give each participant's "
            "age, or remove the Levels if the numbers are ages"
        )
    stated = str(of_column.get("units", of_column.get("unit", "")))
    texts = (stated, *(str(of_column.get(key, "")) for key in ("description", "longname", "termurl")))
    if counts_from_conception(" ".join(texts)):
        raise FedAgeError(
            f"{file} says that {column} {NOT_FROM_BIRTH}, in a column of its own, or correct the description"
        )
    if is_another_age(" ".join(texts[1:])):
        raise FedAgeError(
            f"{file} describes {column} as an age at another moment than the exam, or as no age in years; give the age "
            "at the exam in a column of its own, or correct the description"
        )
    unit = _UNITS.get(stated.strip().casefold())
    if unit is None:
        raise FedAgeError(
            f"{file} says that {column} is in {stated[:30]!r}; allowed are years, months, weeks and days; correct it"
        )
    words = re.findall("[a-z]{3,}", " ".join(texts[1:]).casefold())
    units_mentioned = {_UNITS[word]: word for word in words if word in _UNITS}
    other_words = [word for of_unit, word in units_mentioned.items() if of_unit != "year"]
    if other_words and "year" not in units_mentioned and (not stated or unit not in units_mentioned):
        gives = f"gives the Units {stated[:30]!r}; correct one of them:" if stated else "gives no Units; add"
        raise FedAgeError(
            f"{file} mentions {other_words[0]} in its description of {column} and {gives} "
            f'"Units": "{_UNITS[other_words[0]]}", or "year" if the ages are years'
        )
    return unit


def sex_codes(sidecar: Mapping[str, Any], *, column: str = "sex") -> dict[str, str]:
    """`M` or `F` by lower-case code: the usual words, and a table's codes whose Levels its JSON describes."""
    levels = described(sidecar, column).get("Levels")
    codes = dict(_SEX)
    for code, meaning in levels.items() if isinstance(levels, Mapping) else ():
        text = (meaning.get("Description") if isinstance(meaning, Mapping) else meaning) or ""
        words = re.findall(r"[^\W\d_]+", str(text).casefold())
        sexes = {_IN_LEVELS[word] for word in words if word in _IN_LEVELS}
        key = str(code).strip().casefold()
        if len(sexes) == 1:
            codes[key] = sexes.pop()
        elif key in codes and str(text).strip():
            del codes[key]  # described as something else than the word says
    return codes


def require_sexes(texts: Sequence[str], codes: Mapping[str, str], *, file: str) -> None:
    """Refuse a column of sexes whose words are another language's, where M may be a woman.

    Parameters
    ----------
    texts
        The column's cells.
    codes
        What its codes mean, see `sex_codes`.

    Raises
    ------
    FedAgeError
        Naming what is wrong, and the remedy.
    """
    folded = np.array([text.strip().casefold() for text in texts], dtype=object)
    kinds = kinds_of_words(folded)
    sex_by_text = [codes.get(text) for text in folded]
    by_sex = {"M": MALE, "F": FEMALE}
    kinds = np.array([by_sex.get(sex or "", kind) for sex, kind in zip(sex_by_text, kinds, strict=True)], dtype=object)
    if problem := words_problem(kinds):
        raise FedAgeError(
            f"{file}: column 'sex' {problem}, or describe them in participants.json: "
            '"sex": {"Levels": {"H": "male", "M": "female"}}'
        )


def acquisition_day(text: str) -> date | None:
    """The day of an `acq_time`; it may be shifted by years."""
    try:
        return date.fromisoformat(text.strip()[:10])
    except ValueError:
        return None
