"""Whether an image is of a person: phantoms and animals are scanned too, and say so in their own tags or their names.

Names are looked at and never kept. What makes a name a phantom's is a word that names one (`PHANTOM`, `CTDI`), or
nothing but words of quality control (`QC`, `ACR`, `DAILY QA`): `ACR0001` may be a patient of a trial.
"""

from __future__ import annotations

import re
from functools import lru_cache

from fedage.client.cohort.dicom.descriptions import fold_text
from fedage.client.cohort.dicom.header import EndsEarly, Header, Malformed, sequence_items
from fedage.client.cohort.reasons import Reason

_NAME, _ID, _QC_SUBJECT, _STRAIN = 0x00100010, 0x00100020, 0x00100200, 0x00100212
_SPECIES, _NEUTERED, _BREED, _OWNER_ROLE = 0x00102201, 0x00102203, 0x00102292, 0x00102298
_SPECIES_CODES, _BREED_CODES = 0x00102202, 0x00102293
TAGS = frozenset([_NAME, _ID, _QC_SUBJECT, _STRAIN, _SPECIES, _NEUTERED, _BREED, _OWNER_ROLE])
SEQUENCES = frozenset([_SPECIES_CODES, _BREED_CODES])
_CODE_VALUE, _MEANING = 0x00080100, 0x00080104
_HUMAN_CODES = frozenset(["337915000", "L-85B00"])
_NOT_SAID = frozenset(["", "UNKNOWN", "UNK", "NONE", "NA", "N/A", "NOT APPLICABLE", "OTHER", "UNSPECIFIED"])
_HUMAN_WORDS = frozenset(
    fold_text("HUMAN HUMANS HUMANO HUMANA HUMAIN HUMAINE HOMO SAPIENS MENSCH MENS PERSON UMANO ЧЕЛОВЕК").split()
)
_OF_PHANTOM = frozenset(
    fold_text(
        "PHANTOM PHANTOMS PHANTOME FANTOM FANTOMA FANTOME FANTÔME FANTOOM ФАНТОМ CTDI CATPHAN KONSTANZ "
        "KONSTANZPRÜFUNG KONSTANZPRUEFUNG PRÜFKÖRPER PRUEFKOERPER WASSERPHANTOM WATERPHANTOM SPHERICALPHANTOM"
    ).split()
)
_OF_CONTROL = frozenset(
    fold_text(
        "QC QA QK QUALITY CONTROL ASSURANCE CALIBRATION KALIBRIERUNG CALIBRACION CALIBRAGE ACR NEMA AAPM EUREF "
        "WATER WASSER AGUA ACQUA FLATFIELD SMPTE"
    ).split()
)
_BESIDE = frozenset(
    [
        *("TEST", "TESTS", "DAILY", "WEEKLY", "MONTHLY", "CHECK", "SERVICE", "IMAGE", "SCANNER", "ID", "HEAD", "BODY"),
        *("MR", "CT", "CR", "DX", "MG", "XR"),
    ]
)
_PERIOD = re.compile(r"(?:19|20)\d\d(?:[-_. ]?[01]\d(?:[-_. ]?[0-3]\d)?)?")


def why_no_patient(header: Header) -> Reason | None:
    """`QUALITY_CONTROL` or `ANIMAL` where no person is shown, else None; the header was read with `TAGS`."""
    if _text(header, _QC_SUBJECT) == "YES" or any(is_phantom(_text(header, tag)) for tag in (_NAME, _ID)):
        return Reason.QUALITY_CONTROL
    return Reason.ANIMAL if _is_animal(header) else None


@lru_cache(maxsize=4096)
def is_phantom(text: str) -> bool:
    """Whether a name or an identifier, folded, is a phantom's."""
    words = set(re.findall(r"[^\W\d_]+", text))
    if words & _OF_PHANTOM:
        return True
    has_number = bool(re.search(r"\d", _PERIOD.sub("", text)))
    return bool(words & _OF_CONTROL) and words <= _OF_CONTROL | _BESIDE and not has_number


def _is_animal(header: Header) -> bool:
    said = _text(header, _SPECIES)
    if said not in _NOT_SAID and not set(re.findall(r"[^\W\d_]+", said)) & _HUMAN_WORDS:
        return True
    if any(code not in _HUMAN_CODES and not words & _HUMAN_WORDS for code, words in _codes(header, _SPECIES_CODES)):
        return True
    breeds = [words for _, words in _codes(header, _BREED_CODES) if not words & _HUMAN_WORDS]
    if breeds or any(_text(header, tag) not in _NOT_SAID | _HUMAN_WORDS for tag in (_BREED, _STRAIN)):
        return True
    return _text(header, _NEUTERED) in ("ALTERED", "UNALTERED") or _text(header, _OWNER_ROLE) == "OWNER"


def _codes(header: Header, tag: int) -> list[tuple[str, set[str]]]:
    """Values and words of the codes of a sequence that say something; none of one that cannot be read."""
    try:
        items = sequence_items(
            header.sequences.get(tag, b""),
            implicit=header.implicit,
            little_endian=header.little_endian,
            wanted=frozenset([_CODE_VALUE, _MEANING]),
        )
    except (Malformed, EndsEarly):
        return []
    found = [(_decoded(item.get(_CODE_VALUE, b"")), _decoded(item.get(_MEANING, b""))) for item in items]
    return [
        (code, set(re.findall(r"[^\W\d_]+", meaning)))
        for code, meaning in found
        if code not in _NOT_SAID or meaning not in _NOT_SAID
    ]


def _text(header: Header, tag: int) -> str:
    return _decoded(header.values.get(tag, b""))


def _decoded(raw: bytes) -> str:
    """A text in capitals without accents; of other character sets than UTF-8 and Latin-1 only what is ASCII counts."""
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        text = raw.decode("latin-1")
    return fold_text(text).strip(" \0\t\r\n")
