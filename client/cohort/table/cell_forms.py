"""How a cell that should hold a number is written instead. Messages name this form and quote no patient's value."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pandas as pd

Codes = NDArray[np.object_]
"""A code of `FORMS` for each cell, empty where it holds a number or nothing, (n,)."""

OTHER = "not-a-number"
"""Code of a cell of no known form."""
NOT_NAMED = "not-named"
"""Code of a cell in a mapped column whose text the mapping does not list."""
NOT_NAMED_CELL = "?not named?"
"""Marks such a cell in a table that was mapped and stored."""


@dataclass(frozen=True)
class Form:
    """One way of writing a cell that is not read as a number.

    Parameters
    ----------
    code
        Prefix of the column's name in counts by reason.
    pattern
        Matches a whole cell, surrounding blanks removed.
    what
        What the cells hold, after "holds".
    mend
        What to write instead.
    """

    code: str
    pattern: re.Pattern[str]
    description: str
    remedy: str


_BLANKS = " \u00a0\u2007\u2009\u202f"
_NUMBER = r"(?:\d+(?:[.,]\d+)?|\.\d+)"
_MARKS = "*#†‡§¶^!?'’‘`\"“”$€£°\u200b\u200c\u200d\u2060\ufeff"
_POSITIVE = ("yes", "y", "ja", "oui", "si", "sí", "true", "t", "dead", "deceased", "died", "positive", "pos", "present")
_NEGATIVE = ("no", "n", "nein", "non", "false", "f", "alive", "living", "censored", "negative", "neg", "absent")
_WORDS = {**dict.fromkeys(_POSITIVE, 1), **dict.fromkeys(_NEGATIVE, 0)}
_WORDS_SHOWN = 4


def _form(code: str, pattern: str, what: str, mend: str) -> Form:
    return Form(code, re.compile(pattern, re.IGNORECASE), what, mend)


FORMS = (
    _form(
        "other-digits",
        r"(?=.*(?![0-9])\d)[+\-−－＋]?\d[\d.,．，٫٬]*",
        "numbers in full-width digits or digits of another script",
        'write them with the digits 0 to 9 and a point ("12.5")',
    ),
    _form(
        "date",
        r"\d{4}-\d{1,2}-\d{1,2}(?:[T ].*)?|\d{1,2}([./-])\d{1,2}\1\d{2,4}",
        "dates",
        "write years between two dates",
    ),
    _form(
        "digits-grouped",
        rf"[+-]?\d{{1,3}}([,.'’_{_BLANKS}])\d{{3}}(?:\1\d{{3}})*(?:[.,]\d+)?|[+-]?\d{{1,2}}(?:,\d\d)+,\d{{3}}(?:\.\d+)?",
        'numbers with a sign between thousands (such as "1,234.5", "1.234" for 1234, or "1 234")',
        'write "1234.5": a point before the decimals, nothing between thousands',
    ),
    _form(
        "decimal-comma",
        r"[+-]?\d*,\d+(?:e[+-]?\d+)?",
        'numbers with a comma before the decimals (such as "12,5")',
        'write "12.5": a point before the decimals',
    ),
    _form("minus-sign", rf"[−–]\s?{_NUMBER}", 'numbers with a minus that is no hyphen ("−5")', 'write "-5"'),
    _form(
        "minus-behind",
        rf"[+-]?{_NUMBER}\s?[-−–]|\(\s?{_NUMBER}\s?\)",
        'numbers with a minus behind them or in brackets ("5.2-", "(5.2)")',
        'write "-5.2", or "5.2" where no minus is meant',
    ),
    _form(
        "raised-point",
        r"[+-]?\d*[·•∙⋅‧]\d+",
        'numbers with a raised point before the decimals ("5·2")',
        'write "5.2": a plain point before the decimals',
    ),
    _form(
        "power-of-ten",
        rf"[+-]?{_NUMBER}\s?(?:[x×*·]\s?10\s?(?:\^|\*\*)?\s?[+-]?\d+|[eEdD]\s[+-]?\d+|[dD][+-]?\d+)",
        'numbers with a power of ten ("1.2x10^3")',
        'write "1200" or "1.2e3"',
    ),
    _form(
        "with-mark",
        rf"[{_MARKS}=]+\s?[+-]?{_NUMBER}[{_MARKS}]*|[+-]?{_NUMBER}\s?(?:[{_MARKS}]+|\([a-z*]{{1,3}}\))",
        'numbers with a mark at them (such as "5.2*", "5.2 (H)" or "\'5.2")',
        "write the number alone",
    ),
    _form(
        "range",
        rf"[\[(]?{_NUMBER}\s*(?:-|–|—|to|bis|\.\.+|±|\+/-)\s*{_NUMBER}\s*(?:y|yrs?|years?)?[\])]?",
        'ranges (such as "18-38")',
        "write one number for each patient, or leave the cell empty",
    ),
    _form(
        "limit",
        rf"(?:[<>]=?|≤|≥|~)\s*{_NUMBER}|{_NUMBER}\s*\+",
        'limits (such as "<5" or "89+")',
        "write a number, or leave the cell empty",
    ),
    _form(
        "infinite",
        r"[+-]?(?:inf|infinity|∞|unendlich)|[+-]?\d[\d.]*e\+?\d{3,}",
        'infinite numbers (such as "inf", or "1e400")',
        "write the number, or leave the cell empty",
    ),
    _form("spreadsheet-error", r"#[A-Z/0!?]+", 'errors of a spreadsheet (such as "#DIV/0!")', "mend the spreadsheet"),
    _form(
        "with-unit",
        rf"[+-]?{_NUMBER}\s*(?:%|[a-zµ°²³/]{{1,12}}\.?)",
        'numbers with a unit or letters behind them (such as "45 y")',
        "write the number alone",
    ),
    _form(
        "yes-or-no",
        "|".join(map(re.escape, _WORDS)),
        "words for yes and no",
        "write 1 and 0, or say what the words mean in the site's site.toml",
    ),
)
_BY_CODE = {form.code: form for form in FORMS}
CODES = (OTHER, NOT_NAMED, *_BY_CODE)
MISWRITTEN = frozenset(
    (
        *("other-digits", "digits-grouped", "decimal-comma", "minus-sign", "minus-behind", "raised-point"),
        *("power-of-ten", "with-mark"),
    )
)
"""Forms that were meant as numbers. Read as missing, only the large, negative or marked values would be lost."""
TO_SAY = frozenset(("yes-or-no", "with-unit", "limit", "range", "infinite", "spreadsheet-error"))
"""Forms that are said of a column which no campaign can use for them: somebody meant it to be used."""


def form_codes(column: pd.Series, is_not_number: NDArray[np.bool_]) -> Codes:
    """Form codes (n,) of the cells where `is_not_number` (n,), "" elsewhere; (0,) if there are none."""
    if not is_not_number.any():
        return np.empty(0, dtype=object)
    codes: Codes = np.full(len(column), "", dtype=object)
    texts = column[is_not_number].astype("string").str.strip()
    by_text = {text: form_code(str(text)) for text in texts.unique()}
    codes[is_not_number] = [by_text[text] for text in texts]
    return codes


def form_code(text: str) -> str:
    """Form code of a cell that holds no number.

    Examples
    --------
    >>> [form_code(text) for text in ("1.234,5", "0,75", "18-38", "89+", "yes", "045Y", "31.12.2020", "see letter")]
    ['digits-grouped', 'decimal-comma', 'range', 'limit', 'yes-or-no', 'with-unit', 'date', 'not-a-number']
    """
    if text == NOT_NAMED_CELL:
        return NOT_NAMED
    return next((form.code for form in FORMS if form.pattern.fullmatch(text)), OTHER)


def is_miswritten(codes: Codes, *, numbers: int) -> bool:
    """Whether a column with `numbers` readable cells is numeric and has cells in a form of `MISWRITTEN`."""
    miswritten = int(np.isin(codes, list(MISWRITTEN)).sum())
    return miswritten > 0 and 2 * (numbers + miswritten) >= numbers + int((codes != "").sum())


def most_frequent(codes: Iterable[str], *, among: Collection[str] = CODES) -> str:
    """The most frequent code among those allowed; `OTHER` if there is none."""
    counts = Counter(code for code in codes if code and code in among)
    return counts.most_common(1)[0][0] if counts else OTHER


def description_and_remedy(code: str, *, texts: Sequence[str] = ()) -> tuple[str, str]:
    """What cells of a form hold, and what to write instead; for yes-or-no words, those of `texts` that are known."""
    if code == "yes-or-no" and (meaning_by_word := known_words(texts)):
        words = " and ".join(f'"{word}"' for word in meaning_by_word)
        values = ", ".join(f'"{word}" = {value}' for word, value in meaning_by_word.items())
        return f"words ({words})", f"write 1 and 0, or say what they mean in site.toml: values = {{ {values} }}"
    if code == OTHER:
        return "texts", "write numbers"
    if code == NOT_NAMED:
        return "words or codes that its mapping does not list", "list each of them in values, or set others"
    return _BY_CODE[code].description, _BY_CODE[code].remedy


def known_words(texts: Iterable[str]) -> dict[str, int]:
    """Known words for yes and no among the texts, with their likely meaning. No other text is returned."""
    known = sorted({str(text).strip().casefold() for text in texts} & _WORDS.keys(), key=lambda word: -_WORDS[word])
    return {word: _WORDS[word] for word in known[:_WORDS_SHOWN]}
