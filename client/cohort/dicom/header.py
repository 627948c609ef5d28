"""Reads the top level of a DICOM header: the wanted values, the position of the pixels, whether the file is cut off.

Attack: a hostile file makes the index read, convert or recurse without bound. Rule: values are skipped by seeking,
nothing is converted, sequences are passed without recursion, and elements, depth and lengths are limited, so that a
file costs no more than the bytes of its header. Residual risk: pydicom parses what `dataset` hands to it.

Indexing reads all headers with this parser, because pydicom reads without limits; only functional groups of enhanced
objects and DICOMDIRs go to pydicom. `content_tags` converts the elements of a radiograph's content, `facts` all others,
`pixel_checks` judges the pixels, and `dataset` gives pydicom a file whose frames or pixels are needed. The layout is
that of PS3.5 section 7; the tests compare with pydicom.
"""

from __future__ import annotations

import io
import os
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import BinaryIO

UNDEFINED = 0xFFFFFFFF
PIXEL_TAGS = (0x7FE00008, 0x7FE00009, 0x7FE00010)
IMPLICIT_LITTLE, EXPLICIT_LITTLE = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1"
EXPLICIT_BIG, DEFLATED = "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99"
MAX_INFLATED_BYTES = 512 * 2**20
"""Most that a deflated data set, or a member of an archive, may become."""
INFLATED_FREE_BYTES, MAX_INFLATION = 64 * 2**20, 100
"""What any deflated data set may become, and how many times its own size beyond that; images shrink to a third."""

_LONG_VR = frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())
_SHORT_VR = frozenset(b"AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US".split())
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_MEDIA_CLASS, _SYNTAX = 0x00020002, 0x00020010
_FIRST_GROUPS = (0x0002, 0x0008)
_MAX_VALUE_BYTES = 4096
_MAX_SEQUENCE_BYTES = 16_384
_MAX_ELEMENTS = 1_000_000
_MAX_DEPTH = 100
_WINDOW_BYTES = 16_384


class NotDicom(ValueError):
    """No DICM prefix, and no data set without one either."""


class Malformed(ValueError):
    """The header breaks the rules, or is absurdly long or deep."""


class EndsEarly(ValueError):
    """An element goes on after the end of the file."""


class TooLarge(ValueError):
    """A deflated data set that becomes larger than is ever read."""


@dataclass(frozen=True, slots=True)
class PixelElement:
    """Where the pixel data is: tag, offset of its value in the body, length (`UNDEFINED` if encapsulated)."""

    tag: int
    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class Header:
    """The wanted values, raw, and the pixel element if there is one.

    Parameters
    ----------
    media_class
        Media Storage SOP Class UID; empty if the file does not say.
    stream
        The file.
    body, body_bytes
        What the offsets count in, and its size: the file itself, or what a deflated data set became.
    implicit
        Whether its elements have no VR.
    sequences
        The wanted sequences, raw; `sequence_items` reads them.
    """

    transfer_syntax: str
    media_class: str
    little_endian: bool
    values: Mapping[int, bytes]
    pixels: PixelElement | None
    stream: BinaryIO
    body: BinaryIO
    body_bytes: int
    implicit: bool = False
    sequences: Mapping[int, bytes] = field(default_factory=dict)

    def text(self, tag: int) -> str:
        """The first value of an element of plain characters; empty if it is missing."""
        raw = self.values.get(tag, b"").split(b"\\")[0]
        return raw.decode("ascii", "replace").strip(" \0\t\r\n")

    def unsigned_short(self, tag: int) -> int:
        """The first value of an element of type US; 0 if it is missing."""
        return int.from_bytes(self.values.get(tag, b"")[:2], "little" if self.little_endian else "big")


def read_header(
    stream: BinaryIO, *, size: int, wanted: frozenset[int], sequences: frozenset[int] = frozenset()
) -> Header:
    """Walk over a file of `size` bytes up to its pixel data; it may lack the preamble, or the whole file meta group.

    Raises
    ------
    NotDicom, Malformed, EndsEarly, TooLarge
        What is wrong with it.
    """
    walk = _Walk(stream, size=size)
    walk.start()
    syntax = media_class = ""
    while (element := walk.next(within_group=2)) is not None:
        tag, length = element
        if tag == _SYNTAX:
            syntax = walk.value(length).rstrip(b"\0 ").decode("ascii", "replace")
        elif tag == _MEDIA_CLASS:
            media_class = walk.value(length).rstrip(b"\0 ").decode("ascii", "replace")
        else:
            walk.skip(length)
    body, body_bytes = stream, size
    if syntax == DEFLATED:
        inflated = inflate(stream, start=walk.position)
        body, body_bytes = io.BytesIO(inflated), len(inflated)
        walk = _Walk(body, size=body_bytes)
    implicit, little = walk.settle(syntax)
    syntax = syntax or (IMPLICIT_LITTLE if implicit else EXPLICIT_LITTLE if little else EXPLICIT_BIG)
    raw: dict[int, bytes] = {}
    values, pixels = _values(walk, wanted, sequences, raw)
    return Header(syntax, media_class, little, values, pixels, stream, body, body_bytes, implicit, raw)


def _values(
    walk: _Walk, wanted: frozenset[int], sequences: frozenset[int], raw: dict[int, bytes]
) -> tuple[dict[int, bytes], PixelElement | None]:
    values: dict[int, bytes] = {}
    while (element := walk.next()) is not None:
        tag, length = element
        if tag in PIXEL_TAGS:
            return values, PixelElement(tag=tag, offset=walk.position, length=length)
        if tag in wanted and length <= _MAX_VALUE_BYTES:
            values[tag] = walk.value(length)
        elif tag in sequences:
            raw[tag] = walk.nested(length)
        else:
            walk.skip(length)
    return values, None


def sequence_items(
    raw: bytes, *, implicit: bool, little_endian: bool, wanted: frozenset[int], sequences: frozenset[int] = frozenset()
) -> list[dict[int, bytes]]:
    """The wanted values, and nested sequences raw, of each item of a sequence of `Header.sequences`.

    Raises
    ------
    Malformed, EndsEarly
        If it breaks the rules.
    """
    walk, items = _Walk(io.BytesIO(raw), size=len(raw)), []
    walk.set_encoding(implicit=implicit, little=little_endian)
    while (element := walk.next()) is not None and element[0] == _ITEM:
        content = walk.nested(element[1], end=_ITEM_END)
        inner, values = _Walk(io.BytesIO(content), size=len(content)), dict[int, bytes]()
        inner.set_encoding(implicit=implicit, little=little_endian)
        while (element := inner.next()) is not None and element[0] != _ITEM_END:
            tag, length = element
            if tag in wanted and length <= _MAX_VALUE_BYTES:
                values[tag] = inner.value(length)
            elif tag in sequences:
                values[tag] = inner.nested(length)
            else:
                inner.skip(length)
        items.append(values)
    return items


def meta_syntax(stream: BinaryIO) -> tuple[str, int]:
    """Transfer syntax of the file meta group, empty without one, and where the data set begins."""
    walk = _Walk(stream, size=stream.seek(0, os.SEEK_END))
    walk.start()
    syntax = ""
    while (element := walk.next(within_group=2)) is not None:
        tag, length = element
        if tag == _SYNTAX:
            syntax = walk.value(length).rstrip(b"\0 ").decode("ascii", "replace")
        else:
            walk.skip(length)
    return syntax, walk.position


def inflate(stream: BinaryIO, *, start: int) -> bytes:
    """The data set of a deflated file (PS3.5 section A.5), which begins at `start`.

    Raises
    ------
    EndsEarly, Malformed, TooLarge
        If it is cut off, is no deflated stream, or would become larger than is ever read.
    """
    deflated_bytes = stream.seek(0, os.SEEK_END) - start
    most_bytes = min(MAX_INFLATED_BYTES, INFLATED_FREE_BYTES + MAX_INFLATION * deflated_bytes)
    stream.seek(start)
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    chunks, total = [], 0
    try:
        while not inflater.eof:
            raw = inflater.unconsumed_tail or stream.read(_WINDOW_BYTES)
            if not raw:
                raise EndsEarly
            chunks.append(inflater.decompress(raw, 2**20))
            total += len(chunks[-1])
            if total > most_bytes:
                raise TooLarge
    except zlib.error:
        raise Malformed from None
    return b"".join(chunks)


def _is_vr(text: bytes) -> bool:
    return len(text) == 2 and text.isalpha() and text.isupper()


class _Walk:
    """Position in a run of data elements, of which a window is held in memory."""

    def __init__(self, stream: BinaryIO, *, size: int) -> None:
        self._stream, self._size = stream, size
        self._window, self._window_start, self._at = b"", 0, 0
        self._left = _MAX_ELEMENTS
        self.set_encoding(implicit=False, little=True)

    def set_encoding(self, *, implicit: bool, little: bool) -> None:
        """How the elements that follow are written."""
        order = "<" if little else ">"
        self._implicit = implicit
        self._head = struct.Struct(f"{order}HH2sH").unpack_from
        self._long = struct.Struct(f"{order}L").unpack_from

    @property
    def position(self) -> int:
        """Offset of what comes next."""
        return self._window_start + self._at

    def _hold(self, count: int) -> int:
        """Have the next `count` bytes in the window; how many there are."""
        available = len(self._window) - self._at
        if available < count:
            start = self.position
            self._stream.seek(start)
            self._window = self._stream.read(max(count, _WINDOW_BYTES))
            self._window_start, self._at = start, 0
            available = len(self._window)
        return available

    def start(self) -> None:
        """Go to the first element, after preamble and prefix where they are there."""
        if self._hold(132) >= 132 and self._window[128:132] == b"DICM":
            self._at = 132
            return
        if len(self._window) < 8:
            raise NotDicom
        # Without the prefix, only what begins like every data set does: an early element of group 0002 or 0008.
        for little in (True, False):
            self.set_encoding(implicit=False, little=little)
            group, element, vr, short = self._head(self._window, 0)
            if group in _FIRST_GROUPS and element < 0x0100:
                length = short if vr in _SHORT_VR else self._long(self._window, 4)[0]
                if vr in _SHORT_VR or vr in _LONG_VR or (little and length <= min(self._size, 256)):
                    self.set_encoding(implicit=False, little=True)
                    return
        raise NotDicom

    def settle(self, syntax: str) -> tuple[bool, bool]:
        """Whether what follows has no VR, and is little-endian: as it is written, should it contradict its syntax."""
        available = self._hold(8)
        little = syntax != EXPLICIT_BIG
        if not syntax and available >= 2:
            little = self._window[self._at : self._at + 2] != b"\0\x08"
        implicit = not _is_vr(self._window[self._at + 4 : self._at + 6])
        self.set_encoding(implicit=implicit, little=little)
        return implicit, little

    def next(self, *, within_group: int | None = None) -> tuple[int, int] | None:
        """Tag and length of the next element, then at its value; None at the end of the file or of the group."""
        if len(self._window) - self._at < 12:
            available = self._hold(12)
            if available < 8:
                if available:
                    raise EndsEarly
                return None
        offset = self._at
        group, element, vr, short = self._head(self._window, offset)
        if within_group is not None and group != within_group:
            return None
        self._left -= 1
        if self._left < 0:
            raise Malformed
        self._at = offset + 8
        tag: int = group << 16 | element
        if self._implicit or group == 0xFFFE:
            return tag, self._long(self._window, offset + 4)[0]
        if vr in _SHORT_VR:
            return tag, short
        if vr not in _LONG_VR:  # a VR of tomorrow, or none at all
            return tag, short if _is_vr(vr) else self._long(self._window, offset + 4)[0]
        if len(self._window) < offset + 12:
            raise EndsEarly
        self._at = offset + 12
        return tag, self._long(self._window, offset + 8)[0]

    def value(self, length: int) -> bytes:
        """The value of the element just met."""
        if length == UNDEFINED:
            raise Malformed
        end = self._at + length
        if end > len(self._window):
            if self.position + length > self._size or self._hold(length) < length:
                raise EndsEarly
            end = self._at + length
        value = self._window[self._at : end]
        self._at = end
        return value

    def skip(self, length: int, *, end: int = _SEQUENCE_END) -> None:
        """Go to the end of the element just met, whatever is nested in it; `end` closes one of undefined length."""
        if length != UNDEFINED:
            self._forward(length)
            return
        closing_tags = [end]  # what closes each open sequence or item, innermost last
        while closing_tags:
            element = self.next()
            if element is None:
                raise EndsEarly
            tag, length = element
            if tag == closing_tags[-1]:
                closing_tags.pop()
            elif length != UNDEFINED:
                self._forward(length)
            elif len(closing_tags) < _MAX_DEPTH:
                closing_tags.append(_ITEM_END if tag == _ITEM else _SEQUENCE_END)
            else:
                raise Malformed

    def nested(self, length: int, *, end: int = _SEQUENCE_END) -> bytes:
        """What stands in the sequence or item just met, cut off where it is more than is ever read; then at its end."""
        start = self.position
        self.skip(length, end=end)
        self._stream.seek(start)
        return self._stream.read(min(self.position - start, _MAX_SEQUENCE_BYTES))

    def _forward(self, length: int) -> None:
        self._at += length
        if self._at > len(self._window):
            if self.position > self._size:
                raise EndsEarly
            self._window_start, self._window, self._at = self.position, b"", 0
