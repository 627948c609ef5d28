"""A table's sex column as 1 for male and 0 for female: words, or the campaign's numbers; nothing is guessed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fedage.client.cohort.table.read import Mask, parse_numbers
from fedage.common.campaign.types import TableChoice
from fedage.common.errors import FedAgeError
from fedage.common.statistics.statistic import FloatArray

if TYPE_CHECKING:
    import pandas as pd

USUAL_FEMALE_CODES = (0.0, 1.0, 2.0, -1.0)
"""Codes for female that need no `table.female`, whichever of them are not `table.male`."""
_WORDS = {"m": 1.0, "male": 1.0, "f": 0.0, "female": 0.0}
_SHOWN = 6
_MEN = (
    "mann männlich maennlich junge homme masculin garçon hombre masculino varón varon maschio uomo homem man mannelijk "
    "mand mies erkek bay mężczyzna mezczyzna muž muz férfi ferfi м муж мужской 男 男性 남 남성 남자"
)
_WOMEN = (
    "frau weiblich mädchen maedchen femme féminin feminin fille mujer femenino hembra femmina donna mulher feminino "
    "vrouw vrouwelijk kvinde kvinna kvinne nainen kadın kadin bayan kobieta žena zena nő ж жен женский "
    "女 女性 여 여성 여자"
)
_LETTERS = ("h", "v", "w", "k", "e", "ž", "z")
"""What one sex or the other is called where M may stand for a woman (mujer), or for a man beside W or K."""
FOREIGN = {**dict.fromkeys(_MEN.split(), "M"), **dict.fromkeys(_WOMEN.split(), "F")}
"""Words for the sexes in other languages than English, folded; as a table's own words they are not guessed."""
_NEITHER = frozenset(
    (
        *(
            "",
            "?",
            "-",
            "--",
            ".",
            "/",
            "*",
            "u",
            "unk",
            "unknown",
            "unbekannt",
            "inconnu",
            "desconocido",
            "o",
            "other",
        ),
        *(
            "x",
            "d",
            "n",
            "na",
            "n/a",
            "nan",
            "none",
            "null",
            "nd",
            "nk",
            "nr",
            "i",
            "a",
            "divers",
            "diverse",
            "missing",
        ),
        *("intersex", "nonbinary", "non-binary", "nb", "not reported", "not known", "not stated", "undetermined"),
        *("indeterminate", "not specified", "unspecified", "prefer not to say", "refused", "k.a.", "k. a."),
    )
)
_FEWEST_OTHERS, _LARGEST_SHARE = 3, 0.05

MALE, FEMALE, IN_ANOTHER_LANGUAGE, OTHER_WORD = "m", "f", "language", "other"


def kinds_of_words(column: pd.Series | NDArray[np.object_]) -> NDArray[np.object_]:
    """What each cell (n,) of a sex column is as a word: male, female, another language's, any other; else empty."""
    import pandas as pd

    texts = pd.Series(column).astype("string").fillna("").str.strip().str.casefold()
    kinds = {text: _kind_of_word(str(text)) for text in texts.unique()}
    return np.array([kinds[text] for text in texts], dtype=object)


def _kind_of_word(text: str) -> str:
    if text in _WORDS:
        return MALE if _WORDS[text] else FEMALE
    if text in FOREIGN or text in _LETTERS:
        return IN_ANOTHER_LANGUAGE
    if text in _NEITHER or not any(sign.isalpha() for sign in text):
        return ""
    return OTHER_WORD


def words_problem(kinds: NDArray[np.object_]) -> str:
    """Why a column's words (n,) cannot be read as sexes, after its name; empty if they can.

    In Spanish M is a woman beside H or V, in German a man beside W: words of another language say that the known ones
    may mean something else. So do any others where the known ones say one sex only.
    """
    filled = int(np.count_nonzero(kinds != ""))
    doubtful = int(np.count_nonzero(kinds == IN_ANOTHER_LANGUAGE))
    others = int(np.count_nonzero(kinds == OTHER_WORD))
    if not ((kinds == MALE).any() and (kinds == FEMALE).any()) and others >= _FEWEST_OTHERS:
        doubtful += others
    known = bool(np.isin(kinds, (MALE, FEMALE)).any())
    if not known or not doubtful or doubtful <= _LARGEST_SHARE * filled:
        return ""
    return (
        "holds M or F beside other words for a sex, so that M may mean a man (beside W or K) or a woman (beside H or "
        "V, as in Spanish); write male and female"
    )


def parse_sexes(column: pd.Series, table: TableChoice) -> tuple[FloatArray, Mask, frozenset[float]]:
    """1 male, 0 female, NaN unknown, (n,); which cells are neither, (n,); and the numbers that are read as female.

    Without `table.female` any number beside `table.male` is female here; `require_known` then says whether that may be.
    """
    import pandas as pd

    words = column.astype("string").str.strip().str.lower().map(_WORDS)
    word_values = np.array(pd.to_numeric(words, errors="coerce"), dtype=np.float64)
    is_word = np.isfinite(word_values)
    codes, is_neither = parse_numbers(column.where(~is_word), missing=table.missing)
    male, code = codes == table.male, np.isfinite(codes)
    female = code & ~male if table.female is None else codes == table.female
    is_neither = (is_neither & ~is_word) | (code & ~male & ~female)
    values = np.where(is_word, word_values, np.where(male, 1.0, np.where(female, 0.0, np.nan)))
    return values, is_neither, frozenset(np.unique(codes[female]).tolist())


def require_known(female_by_file: Sequence[frozenset[float]], *, any_known: bool, table: TableChoice) -> None:
    """Refuse numbers that nobody said are female.

    Parameters
    ----------
    female_by_file
        What was read as female in each file.
    any_known
        Whether any cell of any file says male or female.

    Raises
    ------
    FedAgeError
        In one line, with the codes allowed.
    """
    allowed = f"M, F, male, female, table.male ({table.male:g}) and {_female(table)}"
    if not any_known:
        raise FedAgeError(
            f"column {table.sex!r} says of nobody who is male or female (allowed are {allowed}); "
            "correct table.sex, or set table.male and table.female to the column's codes"
        )
    codes = sorted(frozenset().union(*female_by_file))
    if table.female is not None or not codes or (len(codes) == 1 and codes[0] in USUAL_FEMALE_CODES):
        return
    shown = ", ".join(f"{code:g}" for code in codes[:_SHOWN]) + (" …" if len(codes) > _SHOWN else "")
    raise FedAgeError(
        f"column {table.sex!r} holds {shown} beside table.male = {table.male:g}, and which of them is female is not "
        f"known (allowed are {allowed}); set table.female, and put codes for unknown into table.missing"
    )


def _female(table: TableChoice) -> str:
    if table.female is not None:
        return f"table.female ({table.female:g})"
    return "one of " + ", ".join(f"{code:g}" for code in USUAL_FEMALE_CODES if code != table.male)
