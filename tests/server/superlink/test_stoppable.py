"""A Grid passes every call on until it is told to stop."""

import pytest

from fedage.server.superlink.grid import StoppableGrid


class Recorded:
    def __init__(self) -> None:
        self.calls: list[str] = []

    def get_node_ids(self):
        self.calls.append("get_node_ids")
        return [7]

    def create_message(self, content, message_type, dst_node_id, group_id, ttl=None):
        self.calls.append("create_message")
        return (content, message_type, dst_node_id, group_id, ttl)

    def push_messages(self, messages):
        self.calls.append("push_messages")
        return list(messages)

    def pull_messages(self, message_ids):
        self.calls.append("pull_messages")
        return list(message_ids)


def test_what_is_called_is_called_there_until_it_is_stopped() -> None:
    inner, wanted = Recorded(), []
    grid = StoppableGrid(inner, stop=lambda: bool(wanted))
    calls = (
        lambda: grid.get_node_ids(),
        lambda: grid.create_message("c", "train", 7, "g", 1.0),
        lambda: grid.push_messages(["m"]),
        lambda: grid.pull_messages(["i"]),
    )
    assert [call() for call in calls] == [[7], ("c", "train", 7, "g", 1.0), ["m"], ["i"]]
    made = list(inner.calls)
    wanted.append(True)
    for call in calls:
        with pytest.raises(KeyboardInterrupt):
            call()
    assert inner.calls == made
