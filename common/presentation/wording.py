"""Words that sentences on both sides are made of."""

from __future__ import annotations

from collections.abc import Sequence


def listed(words: Sequence[str]) -> str:
    """`a`, `a and b`, or `a, b and c`."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def shortened(text: str, *, most: int = 32) -> str:
    """A label of a figure's axis: a longer one would leave no place for the figure, so its middle is left out.

    Examples
    --------
    >>> shortened("gap: age_years"), shortened("left_middle_temporal_thickness_mm", most=20)
    ('gap: age_years', 'left_middl…ckness_mm')
    """
    head = (most - 1 + 1) // 2
    return text if len(text) <= most else f"{text[:head]}…{text[head + 1 - most :]}"


def years(number: float) -> str:
    """A time with its unit.

    Examples
    --------
    >>> years(1.0), years(2.5), years(0.5)
    ('1 year', '2.5 years', '0.5 years')
    """
    return f"{number:g} year{'' if number == 1 else 's'}"
