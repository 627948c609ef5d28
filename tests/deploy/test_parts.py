"""Parts of a message travel together, and one by one where the other end knows no such request."""

from __future__ import annotations

import inspect

import pytest
from flwr.supercore.inflatable.inflatable_utils import ObjectPullError, ObjectPushError
from flwr.supercore.interceptors.http import runtime_token
from flwr.superlink.grid import http_grid
from flwr.supernode import node_auth_http_interceptor

from fedage.deploy.machine import parts
from fedage.deploy.machine.parts import joined, name_of, names_in, pull_parts, push_parts, separated

NAMES = [character * 64 for character in "abcde"]


class Store:
    """What is at the other end: it gives as many parts at a time as it likes, and notes each request."""

    def __init__(self, *, together: int) -> None:
        self.contents = {name: name[:1].encode() * (number * 3) for number, name in enumerate(NAMES)}
        self.together = together
        self.asked: list[str] = []

    def pull(self, name: str) -> bytes:
        self.asked.append(name)
        if (names := names_in(name)) is None:
            return self.contents[name]
        if not self.together:
            raise ObjectPullError(name, "the object could not be found.")
        return joined(self.contents[one] for one in names[: self.together])

    def push(self, name: str, content: bytes) -> None:
        self.asked.append(name)
        if (names := names_in(name)) is None:
            self.contents[name] = content
        elif not self.together:
            raise ObjectPushError(name, 1, "")
        else:
            self.contents.update(zip(names, separated(content), strict=True))


@pytest.mark.parametrize(("together", "requests"), [(5, 1), (2, 3), (3, 2), (1, 5), (0, 6)])
def test_all_parts_arrive_however_many_come_at_a_time(together: int, requests: int) -> None:
    store = Store(together=together)
    assert pull_parts([*NAMES, NAMES[0]], store.pull) == store.contents
    assert len(store.asked) == requests


@pytest.mark.parametrize("answer", [b"", b"1234567", joined([b"x"])[:-1], joined([b"x"] * 9)])
def test_an_answer_that_is_none_is_asked_for_one_by_one(answer: bytes) -> None:
    store = Store(together=0)
    wanted = {name: store.contents[name] for name in NAMES}
    assert pull_parts(NAMES, lambda name: answer if names_in(name) else wanted[name]) == wanted


@pytest.mark.parametrize(("bound", "together", "requests"), [(100, 1, 1), (10, 1, 3), (1, 1, 5), (100, 0, 6)])
def test_what_is_sent_arrives_in_requests_of_bounded_size(
    bound: int, together: int, requests: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts, "TOGETHER_BYTES", bound)
    sent, store = dict(Store(together=0).contents), Store(together=together)
    store.contents = {}
    push_parts(sent.items(), store.push)
    assert store.contents == sent
    assert len(store.asked) == requests


def test_one_part_is_flowers_own_request_and_none_is_none() -> None:
    store = Store(together=5)
    assert pull_parts(NAMES[:1], store.pull) == {NAMES[0]: b""}
    push_parts([(NAMES[1], b"x")], store.push)
    assert pull_parts([], store.pull) == {}
    push_parts([], store.push)
    assert store.asked == NAMES[:2]


@pytest.mark.parametrize("cut", [1, 7, 8, 9, 12])
def test_contents_cut_short_are_refused(cut: int) -> None:
    whole = joined([b"abcd", b"", b"efg"])
    assert list(separated(whole)) == [b"abcd", b"", b"efg"]
    with pytest.raises(ValueError, match="part"):
        list(separated(whole[:-cut]))


def test_a_name_of_several_is_no_parts_name() -> None:
    assert names_in(name_of(NAMES)) == NAMES
    assert names_in(NAMES[0]) is None


def test_flowers_grid_and_interceptors_have_what_is_replaced() -> None:
    assert {"pull_objects", "push_objects"} <= set(vars(http_grid))
    source = inspect.getsource(http_grid.HttpGrid)
    assert "pull_objects(\n                        object_ids=[" in source
    assert "object_ids_to_push=set(res.objects_to_push)" in source
    for module in (runtime_token, node_auth_http_interceptor):
        assert list(inspect.signature(module.add_headers).parameters) == ["request", "headers"]
        assert "add_headers(" in inspect.getsource(module)
