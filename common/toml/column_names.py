"""What a column of a hospital's table may be called where a campaign file names it.

Any letters, digits and signs, and blanks inside, as hospitals and statistical packages write them ("tumour size",
"ki-67", "Größe (cm)"). Attack: a name that hides in a terminal, a report or a log, or reads as another one, by control
characters, marks that turn the direction of writing, or blanks nobody sees. Rule: none of these, and a length. Letters
that look alike in two scripts remain.

The same name may be stored as different characters: "é" as one or as a letter and an accent, as macOS writes names,
digits and letters in the wide forms of East Asian keyboards, the micro sign as such or as a Greek letter. Names are
brought to one form wherever they are read, in tables, settings and campaign files, so that they are one column at all
sites.
"""

from __future__ import annotations

import unicodedata

MOST_CHARACTERS = 100
PATTERN = r"^[^\p{C}\p{Z}](?:[^\p{C}\p{Z}]|[ ]){0,99}$"
"""As a JSON schema has it; a trailing blank is what `is_column_name` refuses beyond it."""


_WIDE_TO_PLAIN = {wide: wide - 0xFEE0 for wide in range(0xFF01, 0xFF5F)} | {0x00B5: 0x03BC}


def normal_name(text: str) -> str:
    r"""A column's name in its one form: composed (NFC), wide letters and digits as plain ones, micro sign as Greek mu.

    >>> [normal_name(name) for name in ("e\u0301ge", "\uff56\uff11", "\u00b5l")]
    ['\xe9ge', 'v1', '\u03bcl']
    """
    return unicodedata.normalize("NFC", text.translate(_WIDE_TO_PLAIN))


def is_column_name(text: str) -> bool:
    r"""Whether a campaign file can name a column so.

    >>> [is_column_name(name) for name in ("tumour size", "ki-67", "Größe (cm)", "2nd visit")]
    [True, True, True, True]
    >>> [is_column_name(name) for name in ("", " age", "age ", "a\tb", "a\u202eb", "a\u00a0b", "x" * 101)]
    [False, False, False, False, False, False, False]
    """
    return 0 < len(text) <= MOST_CHARACTERS and text.isprintable() and text == text.strip()
