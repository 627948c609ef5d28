"""Members of a zip, opened one by one: the directory is read once, and again when the archive is another one."""

import zipfile
from pathlib import Path

import pytest

from fedage.client.cohort.decoding import archive
from fedage.client.cohort.decoding.archive import SEPARATOR, Refused, open_image


def zipped(path: Path, members: dict[str, bytes]) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as out:
        for name, content in members.items():
            out.writestr(name, content)


def read(path: Path, member: str) -> bytes:
    with open_image(Path(f"{path}{SEPARATOR}{member}")) as stream:
        return stream.read()


def test_the_directory_of_many_members_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[Path] = []
    really = archive._open
    monkeypatch.setattr(archive, "_open", lambda path: (opened.append(path), really(path))[1])
    members = {f"study/{number}": f"slice {number}".encode() * number for number in range(200)}
    zipped(tmp_path / "a.zip", members)
    held = sum(1 for _ in Path("/proc/self/fd").iterdir())
    assert {name: read(tmp_path / "a.zip", name) for name in members} == members
    assert opened == [tmp_path / "a.zip"]
    assert (
        sum(1 for _ in Path("/proc/self/fd").iterdir()) == held
    )  # nothing that would keep a disc from being taken out


def test_an_archive_that_was_replaced_is_read_anew(tmp_path: Path) -> None:
    zipped(tmp_path / "a.zip", {"1": b"first", "2": b"other"})
    assert read(tmp_path / "a.zip", "1") == b"first"
    zipped(tmp_path / "b.zip", {"0": b"before it", "1": b"second"})
    (tmp_path / "b.zip").replace(tmp_path / "a.zip")
    assert read(tmp_path / "a.zip", "1") == b"second"
    with pytest.raises(Refused):
        read(tmp_path / "a.zip", "2")
    (tmp_path / "a.zip").unlink()
    with pytest.raises(FileNotFoundError):
        read(tmp_path / "a.zip", "1")


def test_a_member_whose_place_holds_something_else_is_broken(tmp_path: Path) -> None:
    zipped(tmp_path / "a.zip", {"1": b"first" * 100})
    raw = bytearray((tmp_path / "a.zip").read_bytes())
    raw[:4] = b"PK\x05\x06"
    (tmp_path / "a.zip").write_bytes(raw)
    with pytest.raises(Refused) as refused:
        read(tmp_path / "a.zip", "1")
    assert refused.value.code == "broken-archive"
