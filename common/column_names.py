"""What a column of a hospital's table may be called where a campaign file names it.

Any letters, digits and signs, and blanks inside, as hospitals and statistical packages write them ("tumour size",
"ki-67", "Größe (cm)"). Attack: a name that hides in a terminal, a report or a log, or reads as another one, by control
characters, marks that turn the direction of writing, or blanks nobody sees. Rule: none of these, and a length. Letters
that look alike in two scripts remain.
"""

from __future__ import annotations

MOST_CHARACTERS = 100
PATTERN = r"^[^\p{C}\p{Z}](?:[^\p{C}\p{Z}]|[ ]){0,99}$"
"""As a JSON schema has it; a trailing blank is what `is_column_name` refuses beyond it."""


def is_column_name(text: str) -> bool:
    r"""Whether a campaign file can name a column so.

    >>> [is_column_name(name) for name in ("tumour size", "ki-67", "Größe (cm)", "2nd visit")]
    [True, True, True, True]
    >>> [is_column_name(name) for name in ("", " age", "age ", "a\tb", "a\u202eb", "a\u00a0b", "x" * 101)]
    [False, False, False, False, False, False, False]
    """
    return 0 < len(text) <= MOST_CHARACTERS and text.isprintable() and text == text.strip()
