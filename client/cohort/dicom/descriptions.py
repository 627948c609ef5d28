"""Interprets free descriptions of a radiograph (SeriesDescription, ProtocolName and others), in several languages.

They follow no rule, so the absence of a word proves nothing. They only keep an image out, or confirm a frontal view
that ViewPosition states (`is_frontal`). A text that names two views (`CHEST PA AND LATERAL`) describes the whole series
and is evidence for neither. Texts are expected folded (`fold_text`): in capitals, without accents.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from functools import lru_cache

_LETTERS = str.maketrans({"ß": "SS", "Æ": "AE", "Œ": "OE", "Ø": "O", "Ł": "L", "Đ": "D", "Þ": "TH", "İ": "I", "ı": "I"})


def fold_text(text: str) -> str:
    """A text in capitals without accents, so that a word has one spelling: `Schädel` as SCHADEL, `MÃO` as MAO."""
    decomposed = unicodedata.normalize("NFKD", text.upper().translate(_LETTERS))
    return unicodedata.normalize("NFC", "".join(sign for sign in decomposed if not unicodedata.combining(sign)))


def _folded_words(*words: str) -> frozenset[str]:
    """The words of several texts, folded."""
    return frozenset(fold_text(" ".join(words)).split())


_CHEST = _folded_words(
    "CHEST THORAX LUNG LUNGS TORAX TORACE CXR POUMON POUMONS LUNGE LUNGEN PULMON PULMONES PULMAO PULMOES POLMONI "
    "KLATKA PLUCA PLICE HRUDNIK LONGEN LUNGOR LUNGER GOGUS AKCIGER ГРУДНАЯ ГРУДНОЙ ОГК ЛЁГКИЕ ЛЁГКИХ"
)
_WHOLE_BODY = _folded_words("BABYGRAM BABYGRAMM BABYGRAMA WHOLEBODY GANZKÖRPER GANZKOERPER")
"""More than the chest, also where a text names the chest beside it."""
_OTHER_PARTS = (
    _WHOLE_BODY
    | _folded_words(
        "CRANIUM NECK HALS MANDIBULA TEETH DENTAL OPG ORTHOPANTOMOGRAM TMJ ZYGOMA FACIAL KIEFER NASE NNH "
        "SCHÄDEL SCHAEDEL CRÂNE CRÁNEO CRÂNIO CRANIO CRANEO SCHEDEL CZASZKA LEBKA SKALLE KRANIUM KRANIE KAFA",
        "ЧЕРЕП ЧЕРЕПА",
        "MÃO MÃOS MANOS MANI MAINS HÄNDE HAENDE HÅND HÄNDER DŁOŃ RĘKA RUKA HANDS КИСТЬ КИСТИ",
        "PUNHO PUNHOS POIGNET MUÑECA POLSO POLS NADGARSTEK HÅNDLED HANDLED HANDWURZEL METACARPAL SCAPHOID",
        "DAUMEN DEDO DEDOS DITO DOIGT VINGER",
        "PALEC",
        "ELLENBOGEN ELLBOGEN COUDE CODO COTOVELO GOMITO ELLEBOOG ŁOKIEĆ ARMBÅGE ALBUE UNTERARM OBERARM AVANTBRAS",
        "ÉPAULE OMBRO SPALLA SCHOUDER SKULDER OMUZ ПЛЕЧО SCHLÜSSELBEIN SCHLUESSELBEIN CLAVICULE CLAVICULA "
        "CLAVICLES SCAPULAE FÜSSE FUESSE FÜß FUß PIEDS PIEDE PIEDI PÉS TORNOZELO TOBILLO CHEVILLE CAVIGLIA",
        "SPRUNGGELENK ENKEL VOET STOPA FOT AYAK СТОПА СТОПЫ ZEHE ZEHEN ORTEIL METATARSAL CALCANEUM",
        "JOELHO JOELHOS KNÄ KNÆ KOLANO KOLENO GENOUX RODILLAS КОЛЕНО КОЛЕННЫЙ",
        "HÜFTE HUEFTE HÜFTEN HÖFT HOFTE HANCHE CADERA "
        "QUADRIL HEUP BIODRO BEKKEN BACIA BACINO MIEDNICA BECKENÜBERSICHT BECKENUEBERSICHT ТАЗ ТАЗА",
        "LEG LEGS JAMBE UNTERSCHENKEL OBERSCHENKEL FEMORE FEMURS TIBFIB",
        "WIRBELSÄULE COLUNA COLONNA RACHIDE KRĘGOSŁUP PÁTEŘ ПОЗВОНОЧНИК SACROILIAC ISG THORACOLUMBAR VERTEBRAL",
        "ABDOME ADDOME BAUCH BUIK BUK BRZUCH BŘICHO ЖИВОТ",
        "RIPPE RIPPEN CÔTES COTES COSTILLAS COSTELAS COSTE ŻEBRA",
    )
    | frozenset(
        [
            *("HAND", "HANDS", "WRIST", "WRISTS", "FINGER", "FINGERS", "THUMB", "ELBOW", "FOREARM", "HUMERUS"),
            *("SHOULDER", "SHOULDERS", "CLAVICLE", "SCAPULA", "FOOT", "FEET", "TOE", "TOES", "ANKLE", "ANKLES", "HEEL"),
            *("CALCANEUS", "KNEE", "KNEES", "PATELLA", "TIBIA", "FIBULA", "FEMUR", "HIP", "HIPS", "PELVIS", "ABDOMEN"),
            *("KUB", "SPINE", "CSPINE", "TSPINE", "LSPINE", "CERVICAL", "LUMBAR", "SACRUM", "COCCYX", "SCOLIOSIS"),
            *("SKULL", "SINUS", "SINUSES", "ORBIT", "ORBITS", "MANDIBLE", "BREAST", "BREASTS", "RIB", "RIBS"),
            "STERNUM",
            *("HANDGELENK", "FUSS", "KNIE", "SCHULTER", "BECKEN", "HUEFTE", "WIRBELSAEULE", "LWS", "HWS", "BWS"),
            *("GENOU", "PIED", "EPAULE", "BASSIN", "RACHIS", "MANO", "RODILLA", "HOMBRO", "COLUMNA", "GINOCCHIO"),
        ]
    )
)
_WITH_CONTRAST = _folded_words(
    "FLUORO FLUOROSCOPY FLUOROSCOPIC FLUOROSKOPIE FLUOROSCOPIA FLUOROSCOPIE VIDEOFLUOROSCOPY DURCHLEUCHTUNG "
    "RADIOSCOPIE RADIOSCOPIA SCOPIE DOORLICHTING GENOMLYSNING GENNEMLYSNING SKIASKOPIE РЕНТГЕНОСКОПИЯ",
    "ESOPHAGUS OESOPHAGUS ÖSOPHAGUS OSOPHAGUS ÖSOFAGUS ESOPHAGRAM ESOPHAGOGRAM OESOPHAGRAM "
    "OESOPHAGOGRAM ESOFAGO ESÓFAGO ESÔFAGO ESOFAGOGRAMA ESOFAGEO ESOFAGE OESOPHAGE ŒSOPHAGE OESOPHAGIEN SLOKDARM "
    "SPEISERÖHRE SPEISEROEHRE MATSTRUPE SPISERØR PRZEŁYK PRZEŁYKU JÍCEN ПИЩЕВОД ПИЩЕВОДА",
    "SWALLOW SWALLOWING DEGLUTITION DEGLUCIÓN DEGLUTIÇÃO DEGLUTIZIONE SCHLUCKAKT SCHLUCK BREISCHLUCK SLIKACT SLIKFOTO",
    "BARIUM BARIO BÁRIO BARYT BARYTÉ BARITADO BARITATO BARYUM БАРИЙ БАРИЯ GASTROGRAFIN GASTROGRAPHIN UGI",
    "BRONCHOGRAM BRONCHOGRAPHY BRONCHOGRAPHIE ANGIOGRAM ANGIOGRAPHY ANGIOGRAPHIE VENOGRAM PHLEBOGRAPHIE",
)
"""A beam of its own, a contrast medium, or both: no plain film, whichever way the patient looks."""
_LATERAL = frozenset(
    [
        *("LAT", "LATERAL", "SEITLICH", "SEITL", "PROFIL", "LATERALE", "LATEROLATERAL", "LATEROLATERALE"),
        *("LL", "RL", "PERFIL", "PROFILO", "BOCZNE", "BOCZNA"),
    ]
) | _folded_words(
    "LATERALLY LATERALES LATERALNY LATERALNA SEITE SEIT SEITENAUFNAHME SEITENBILD SEITBILD SEITLICHE SEITLICHER "
    "PROFILE ZIJDELINGS SIDEBILDE SIDEBILLEDE SIDOBILD SIDA BOČNÍ BOCZNY OLDALIRÁNYÚ БОКОВАЯ БОКОВОЙ БОКОВОЕ"
)
_UNUSUAL = {
    word: view
    for view, words in {
        "OBLIQUE": _folded_words(
            "OBL OBLI OBLIQ OBLIQUE OBLIQUES OBLIQUA OBLICUA OBLICUAS OBLICUO OBLIQUO OBLIQUAS SCHRÄG SCHRAEG SCHRÄGE "
            "SKOŚNE SKOŚNA SKRÅ ŠIKMÁ RAO LAO RPO LPO RLO LLO КОСАЯ"
        ),
        "DECUBITUS": _folded_words("DECUB DECUBITUS DECUBITO DECUBS RLD LLD LATERODECUBITUS SEITENLAGE"),
        "LORDOTIC": _folded_words("LORDOTIC LORDOTICA LORDOTIQUE LORDOSE LORDOTISCH LINDBLOM FLEISCHNER APICOLORDOTIC"),
        "APICAL": _folded_words("APICAL APICES APEX APICALE LUNGENSPITZE LUNGENSPITZEN"),
        "AXIAL": _folded_words("AXIAL AXIALE TANGENTIAL TRANSTHORACIC CROSSTABLE"),
    }.items()
    for word in words
}
_LYING_ON_THE_BACK = re.compile(r"\bDECUB\w*\.? +(?:SUPIN\w*|DORSA\w*)")
"""As languages of Latin origin say `supine`; `DORSAL DECUBITUS` is a lateral view in English."""
_LISTS = re.compile(r"[,+&/;]|\b(?:AND|UND|ET|Y|E|I|OG|OCH)\b|\b\d ?(?:VIEWS?|VWS?|V|PROJ\w*|EBENEN|INCID\w*)\b")
_CJK_CHEST = re.compile("胸(?!椎)|흉부")
_CJK_OTHER = frozenset(
    ("膝", "手", "足", "颅", "頭", "头", "骨盆", "骨盤", "腹", "肩", "腰", "椎", "肘", "腕", "髋", "무릎", "골반")
)
_SURGERY = re.compile("手[術术]")
_CJK_LATERAL, _CJK_FRONTAL = ("侧位", "側位", "側面", "측면"), ("正位", "正面", "后前", "前後", "정면")
_FRONTAL = frozenset(["PA", "AP", "FRONTAL", "FACE", "POSTEROANTERIOR", "ANTEROPOSTERIOR", "DV", "VD"])
_DECUBITUS = frozenset(["DECUB", "DECUBITUS"])
_QUALITY_CONTROL = re.compile(
    r"\b(PHANTOM|CALIBRATION|FLAT.?FIELD|FLOOD.?FIELD|SMPTE|TG.?18|QUALITY.(CONTROL|ASSURANCE)|TEST.(PATTERN|IMAGE))\b"
)
_SUBTRACTED = re.compile(r"\b(BONE.?SUPPRESS|BONE.?SUPPR\b|SUBTRACT|RECOMBINED|DUAL.?ENERGY.*\b(BONE|SOFT|TISSUE)\b)")


@lru_cache(maxsize=1024)  # a folder has few of them
def _words(text: str) -> frozenset[str]:
    """A text's words; `P.A.` is one. Scripts without blanks: a few views and parts only."""
    normalised = _LYING_ON_THE_BACK.sub("SUPINE", text).replace(".", "")
    words = set(re.findall("[A-Z]+|[А-Я]+", normalised))
    if not text.isascii():
        words |= {"CHEST"} if _CJK_CHEST.search(text) else set()
        words |= {part for part in _CJK_OTHER if part in _SURGERY.sub("", text)}
        words |= {"LATERAL"} if any(sign in text for sign in _CJK_LATERAL) else set()
        words |= {"FRONTAL"} if any(sign in text for sign in _CJK_FRONTAL) else set()
    return frozenset(words)


def other_part(texts: Sequence[str]) -> str:
    """The first part of the body that texts in capitals name, where none names the chest; else empty."""
    words = frozenset[str]().union(*map(_words, texts))
    return min(words & (_WHOLE_BODY if words & _CHEST else _OTHER_PARTS | _CJK_OTHER), default="")


def is_lateral(texts: Sequence[str]) -> bool:
    """Whether texts in capitals speak of a lateral view and of no frontal one."""
    words = frozenset[str]().union(*map(_words, texts))
    return bool(words & _LATERAL) and not words & (_FRONTAL | _DECUBITUS)


def unusual_view(texts: Sequence[str]) -> str:
    """What texts in capitals call a view that is neither frontal nor lateral (`OBLIQUE`, `DECUBITUS`); else empty.

    `AP LORDOTIC` is one view; a text that lists it beside a frontal one (`PA, LAT, OBL`) is of the whole series.
    """
    for text in texts:
        words = _words(text)
        unusual = min((_UNUSUAL[word] for word in words if word in _UNUSUAL), default="")
        if unusual and not (words & _FRONTAL and _LISTS.search(text)):
            return unusual
    return ""


def has_lateral(text: str) -> bool:
    """Whether a text in capitals names a lateral view, alone or beside others."""
    return bool(_words(text) & _LATERAL)


def is_frontal(texts: Sequence[str]) -> bool:
    """Whether texts in capitals speak of a frontal view and of no lateral one."""
    words = frozenset[str]().union(*map(_words, texts))
    return bool(words & _FRONTAL) and not words & _LATERAL


def is_with_contrast(texts: Sequence[str]) -> bool:
    """Whether texts in capitals speak of fluoroscopy, or of an examination with a contrast medium."""
    return bool(frozenset[str]().union(*map(_words, texts)) & _WITH_CONTRAST)


def names_chest(texts: Sequence[str]) -> bool:
    """Whether texts in capitals name the chest."""
    return bool(frozenset[str]().union(*map(_words, texts)) & _CHEST)


def is_quality_control(texts: Sequence[str]) -> bool:
    """Whether a text in capitals says that no patient is shown."""
    return any(_QUALITY_CONTROL.search(text) for text in texts)


def is_subtracted(texts: Sequence[str]) -> bool:
    """Whether a text in capitals says that bones or a second exposure were taken out of the image."""
    return any(_SUBTRACTED.search(text) for text in texts)
