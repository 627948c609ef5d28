"""Site names: whatever a table calls its sites, in the form that names files, folders and results."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

_GERMAN = str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue", "ß": "ss", "æ": "ae", "ø": "oe", "å": "aa"})
_MAX = 63


def site_names(titles: Iterable[str]) -> dict[str, str]:
    """A name of lower-case letters, digits and hyphens for every title, different titles different names.

    Examples
    --------
    >>> site_names(["Universität München", "MAX MUN", "max-mun"])
    {'Universität München': 'universitaet-muenchen', 'MAX MUN': 'max-mun', 'max-mun': 'max-mun-2'}
    """
    names: dict[str, str] = {}
    for title in titles:
        base = _slug(title)
        name, number = base, 2
        while name in names.values():
            suffix = f"-{number}"
            name, number = base[: _MAX - len(suffix)] + suffix, number + 1
        names[title] = name
    return names


def _slug(title: str) -> str:
    text = unicodedata.normalize("NFKD", title.casefold().translate(_GERMAN)).encode("ascii", "ignore").decode()
    return re.sub(r"[^a-z0-9]+", "-", text).strip("-")[:_MAX].strip("-") or "site"
