"""Identifiers that programs and people write where there is none, so that many patients may have them."""

from __future__ import annotations

import re
from functools import lru_cache

from fedage.client.cohort.dicom.descriptions import fold_text

_WORDS = frozenset(
    fold_text(
        "ANON ANONYM ANONYMOUS ANONYMIZED ANONYMISED ANONYMIZE ANONYMISE ANONYMISIERT ANONYME ANONYMISE ANONIMO "
        "ANONIMA ANONIMIZADO ANONIMIZZATO ANONIEM GEANONIMISEERD ANONYMISERET ANONYMISERAD ANONYMNI ANONIMOWY АНОНИМ "
        "UNKNOWN UNBEKANNT INCONNU INCONNUE DESCONOCIDO DESCONOCIDA DESCONHECIDO SCONOSCIUTO SCONOSCIUTA IGNOTO "
        "ONBEKEND UKJENT UKENDT OKÄND TUNTEMATON NIEZNANY NEZNAMY NEZNÁMÝ ISMERETLEN BILINMEYEN НЕИЗВЕСТНО НЕИЗВЕСТНЫЙ "
        "UNK UNDEFINED UNSPECIFIED NONE NULL NIL NAN NA NN NO ID NOID NONAME NAME EMPTY BLANK MISSING VOID KEINE "
        "DEIDENTIFIED DEID DE IDENTIFIED REMOVED REDACTED HIDDEN MASKED DELETED CONFIDENTIAL PSEUDONYM SECRET "
        "TEST TESTER TESTING TESTPATIENT TESTPAT TESTFALL PRUEBA PROVA ESSAI DUMMY DEMO SAMPLE EXAMPLE DEFAULT FAKE "
        "匿名 不明 未知 无名 氏名不明 テスト 测试 익명 미상 테스트 "
        "PATIENT PATIENTID PAT SUBJECT PACIENTE PAZIENTE EMERGENCY NOTFALL DOE JOHN JANE MUSTERMANN"
    ).split()
)
_COUNTED = frozenset("0123456789"[1:end] for end in range(4, 11)) | {"1234567890", "0123456789"}
_LEAST_REPEATED_DIGITS = 4
"""A digit so many times is what people type; 11 and 222 are patients of a small data set."""


@lru_cache(maxsize=4096)
def is_placeholder(identifier: str) -> bool:
    """Whether an identifier is made of such words only, or of one sign again and again (0, 00000, XXXX, ---)."""
    text = fold_text(identifier)
    signs = "".join(re.findall(r"[^\W_]", text))
    if not signs or set(signs) == {"0"} or signs in _COUNTED:
        return True
    if len(set(signs)) == 1:
        return signs[0] == "X" or len(signs) >= (_LEAST_REPEATED_DIGITS if signs[0].isdigit() else 2)
    words = re.findall(r"[^\W\d_]+", text)
    return (all(word in _WORDS for word in words) or "".join(words) in _WORDS) and set(re.findall(r"\d", text)) <= {"0"}
