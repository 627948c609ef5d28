"""Files that are written as a whole or not at all."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from fedage.deploy.machine.atomic import atomic_file, write_atomically


@pytest.mark.parametrize("durable", [True, False])
@pytest.mark.parametrize("before", [None, b"", b"old"])
def test_a_file_is_replaced_as_a_whole(tmp_path: Path, before: bytes | None, durable: bool) -> None:
    file = tmp_path / "state.json"
    if before is not None:
        file.write_bytes(before)
    write_atomically(file, b"new", durable=durable)
    assert file.read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["state.json"]  # noqa: PTH208 - names are enough


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, OSError])
def test_a_write_that_fails_leaves_the_old_file_and_nothing_beside_it(
    tmp_path: Path, error: type[BaseException]
) -> None:
    file = tmp_path / "model"
    file.write_bytes(b"old")

    def fail() -> None:
        with atomic_file(file) as stream:
            stream.write(b"half of")
            raise error

    with pytest.raises(error):
        fail()
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("model", b"old")]


def test_a_process_that_is_killed_while_it_writes_leaves_the_old_file(tmp_path: Path) -> None:
    file = tmp_path / "account"
    file.write_bytes(b"old")
    code = (
        "import os, pathlib, sys; from fedage.deploy.machine.atomic import atomic_file\n"
        "with atomic_file(pathlib.Path(sys.argv[1])) as stream:\n"
        "    stream.write(b'half'); stream.flush(); os.kill(os.getpid(), 9)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(file)], check=False).returncode == -9
    assert file.read_bytes() == b"old"


@pytest.mark.parametrize("mode", [0o600, 0o644, 0o640])
def test_the_mode_is_the_one_asked_for_whatever_the_umask(tmp_path: Path, mode: int) -> None:
    before = os.umask(0o077)
    try:
        write_atomically(tmp_path / "key", b"", mode=mode)
    finally:
        os.umask(before)
    assert (tmp_path / "key").stat().st_mode & 0o777 == mode


def test_a_file_that_must_not_be_replaced_stays(tmp_path: Path) -> None:
    file = tmp_path / "key"
    write_atomically(file, b"first", replaces=False)
    with pytest.raises(FileExistsError):
        write_atomically(file, b"second", replaces=False)
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("key", b"first")]


def test_of_many_who_make_a_file_at_once_one_does(tmp_path: Path) -> None:
    made: list[int] = []

    def make(number: int) -> None:
        try:
            write_atomically(tmp_path / "key", str(number).encode(), replaces=False)
            made.append(number)
        except FileExistsError:
            pass

    threads = [threading.Thread(target=make, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1
    assert (tmp_path / "key").read_text() == str(made[0])


@pytest.mark.parametrize("replaces", [True, False])
def test_a_link_is_replaced_or_refused_and_never_written_through(tmp_path: Path, replaces: bool) -> None:
    victim, file = tmp_path / "victim", tmp_path / "file"
    victim.write_bytes(b"as it was")
    file.symlink_to(victim)
    if replaces:
        write_atomically(file, b"new")
        assert file.read_bytes() == b"new"
    else:
        with pytest.raises(FileExistsError):
            write_atomically(file, b"new", replaces=False)
    assert victim.read_bytes() == b"as it was"


def test_a_folder_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        write_atomically(tmp_path / "missing" / "file", b"")
