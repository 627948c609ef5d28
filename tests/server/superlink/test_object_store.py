"""The store of messages' parts against Flower's own in memory, and a second start on the same folder."""

from __future__ import annotations

import hashlib
import itertools
from pathlib import Path
from typing import cast

import numpy as np
import pytest
from flwr.proto.message_pb2 import ObjectTree
from flwr.supercore.corestate.sql_corestate import SqlCoreState
from flwr.supercore.inflatable.inflatable_object import get_object_id
from flwr.supercore.object_store.in_memory_object_store import InMemoryObjectStore
from flwr.supercore.object_store.object_store import NoObjectInStoreError, ObjectStore
from flwr.superlink import config_loader

from fedage.server.superlink import superlink_main
from fedage.server.superlink.object_store import FileObjectStore, FileObjectStoreFactory


def part(number: int) -> tuple[str, bytes]:
    """An object as Flower has them: a head with its length, a divider, a body."""
    body = f"part {number}".encode() * 50
    content = f"Array {'':s} {len(body)}".encode() + b"\x00" + body
    return get_object_id(content), content


def message(*numbers: int) -> ObjectTree:
    """A message of some parts; the first number is its own."""
    return ObjectTree(
        object_id=part(numbers[0])[0], children=[ObjectTree(object_id=part(number)[0]) for number in numbers[1:]]
    )


def unverified(store: FileObjectStore) -> FileObjectStore:
    """Contents here have Flower's hash, not its whole form."""
    store.verify = False
    return store


def told(store: ObjectStore) -> dict[int, bytes | None]:
    return {number: store.get(part(number)[0]) for number in range(8)}


@pytest.mark.parametrize("seed", range(5))
def test_it_does_what_flowers_store_does_and_knows_it_at_the_next_start(tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    ours, theirs = unverified(FileObjectStore(tmp_path / "objects")), InMemoryObjectStore(verify=False)
    messages = [message(0, 1, 2), message(3, 2, 4), message(5, 6), message(7, 1, 6)]
    for _ in range(60):
        what, which = rng.integers(6), messages[rng.integers(4)]
        for store in (ours, theirs):
            if what < 2:
                store.preregister(int(seed % 2) + 1, which)
            elif what < 4:
                identity, content = part([0, 1, 2, 3, 4, 5, 6, 7][which.ByteSize() % 8])
                if identity in store:
                    store.put(identity, content)
                else:
                    with pytest.raises(NoObjectInStoreError):
                        store.put(identity, content)
            elif what == 4:
                store.delete(which.object_id)
            elif rng.random() < 0 or which is messages[0]:
                store.delete_objects_in_run(1)
        assert told(ours) == told(theirs)
        assert len(ours) == len(theirs)
    again = unverified(FileObjectStore(tmp_path / "objects"))
    assert told(again) == told(theirs)
    for each in messages:
        if each.object_id in theirs:
            assert again.get_object_tree(each.object_id) == theirs.get_object_tree(each.object_id)
    again.clear()
    assert len(again) == 0
    assert len(unverified(FileObjectStore(tmp_path / "objects"))) == 0


def test_what_is_cut_off_counts_as_not_there_and_files_of_nobody_are_removed(tmp_path: Path) -> None:
    store = unverified(FileObjectStore(tmp_path))
    store.preregister(1, message(0, 1, 2))
    for number in (0, 1, 2):
        store.put(*part(number))
    (tmp_path / part(1)[0]).write_bytes(part(1)[1][:-1])
    (tmp_path / f"{part(2)[0]}.new").write_bytes(b"half")
    with (tmp_path / "log").open("a") as log:
        log.write('{"do": "dele')
    again = unverified(FileObjectStore(tmp_path))
    assert (again.get(part(1)[0]), again.get(part(2)[0])) == (b"", part(2)[1])
    assert again.preregister(1, message(0, 1, 2)) == [part(1)[0]]
    assert {file.name for file in tmp_path.iterdir()} == {"log", part(0)[0], part(1)[0], part(2)[0]}


def test_a_name_from_outside_is_no_file(tmp_path: Path) -> None:
    store = FileObjectStore(tmp_path / "objects")
    (tmp_path / "kept").write_bytes(b"x")
    store.delete("../kept")
    assert store.get("../kept") is None
    with pytest.raises(NoObjectInStoreError):
        unverified(store).put("../kept", b"y")
    with pytest.raises(ValueError, match="Invalid object ID"):
        store.preregister(1, ObjectTree(object_id="../kept"))
    assert (tmp_path / "kept").read_bytes() == b"x"
    assert (tmp_path / "objects").stat().st_mode & 0o777 == 0o700


def test_flower_asks_for_its_store_where_it_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config_loader, "ObjectStoreFactory", config_loader.ObjectStoreFactory)
    superlink_main.keep_objects_in_files()
    factory, _ = config_loader.get_objectstore_linkstate_factories(str(tmp_path / "state.db"), None)  # type: ignore[arg-type]
    assert isinstance(factory, FileObjectStoreFactory)
    assert isinstance(factory.store(), FileObjectStore)
    assert factory.store() is factory.store()
    assert (tmp_path / "state-objects").is_dir()
    assert not isinstance(FileObjectStoreFactory().store(), FileObjectStore)


def test_expired_tasks_are_looked_for_once_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[int] = []
    clock = itertools.count(start=100, step=0.4)
    monkeypatch.setattr(SqlCoreState, "_cleanup_expired_task_tokens", lambda self: looks.append(id(self)))
    monkeypatch.setattr(superlink_main.time, "monotonic", lambda: next(clock))
    superlink_main.look_for_expired_tasks_once_a_second()
    self = cast(SqlCoreState, object())
    look = SqlCoreState._cleanup_expired_task_tokens
    for _ in range(10):
        look(self)
    assert len(looks) == 4


def test_hashes_are_flowers() -> None:
    identity, content = part(0)
    assert identity == hashlib.sha256(content).hexdigest()
