"""What waits for a site's line is in a file, whatever its size, and is the same bytes."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedage.server.superlink import bodies
from fedage.server.superlink.bodies import Body


@pytest.mark.parametrize("sizes", [(), (0,), (5,), (3, 0, 4), (8, 9), (40,), (1, 60, 2)])
def test_a_body_is_what_was_added(sizes: tuple[int, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "_IN_MEMORY_BYTES", 10)
    monkeypatch.setattr(bodies, "_PIECE_BYTES", 7)
    parts = [bytes([number]) * size for number, size in enumerate(sizes)]
    whole = b"".join(parts)
    with Body(tmp_path) as body:
        for part in parts:
            body.add(part)
        assert len(body) == len(whole)
        assert body.whole() == whole
        assert b"".join(body.pieces()) == whole
        assert body.whole() == whole  # and again: a held request is read several times
        if len(whole) > 10:
            assert body._parts == []
            assert max(map(len, body.pieces())) <= 7
    assert list(tmp_path.iterdir()) == []  # it never had a name


def test_a_body_that_is_closed_has_no_file_open(tmp_path: Path) -> None:
    body = Body(tmp_path, b"x" * (bodies._IN_MEMORY_BYTES + 1))
    file = body._file
    assert file is not None
    body.close()
    assert file.closed
