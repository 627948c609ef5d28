"""The sites of a simulation in this process: a Grid whose nodes are called one after another.

Flower's engine starts a cluster and moves every message between processes, which takes longer than all that small
tables are asked. The handlers are the same.
"""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections.abc import Iterable

from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.common.constant import ErrorCode
from flwr.supercore.task_identity import TaskIdentity

from fedage.client.site.cancel import Cancellation, cancellable
from fedage.deploy.machine.simulation import SimulationJob

_LOOK_S = 0.2

logger = logging.getLogger(__name__)


class SitesInProcess:
    """Flower's Grid over the sites of a job.

    Parameters
    ----------
    job
        Says which sites there are; a message that is handled while the job is stopped is given up.
    client_app
        Handles their messages.
    """

    def __init__(self, job: SimulationJob, client_app: ClientApp) -> None:
        self._job, self._client_app = job, client_app
        self._replies: dict[str, Message] = {}
        self._numbers = itertools.count(1)
        self._states = {node: RecordDict() for node in self.get_node_ids()}
        self._cancellation = Cancellation()
        # Flower sets these in the process of a ServerApp; without them no message can be made.
        TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, 1, 1
        threading.Thread(target=self._watch, daemon=True, name="stop").start()

    def get_node_ids(self) -> list[int]:
        """A number for each site, from 1."""
        return list(range(1, len(self._job.sites) + 1))

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        """Make a message of this run."""
        return Message(content, message_type=message_type, dst_node_id=dst_node_id, group_id=group_id, ttl=ttl)

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        """Have every message answered."""
        sent = []
        for message in messages:
            number = f"message-{next(self._numbers)}"
            message.metadata.__dict__["_message_id"] = number
            sent.append(number)
            self._replies[number] = self._answer(message)
        return sent

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        """The replies to these messages; each is given out once."""
        return [self._replies.pop(number) for number in list(message_ids) if number in self._replies]

    def _answer(self, message: Message) -> Message:
        node = message.metadata.dst_node_id
        context = Context(1, node, {"partition-id": node - 1}, self._states[node], {})
        try:
            with cancellable(self._cancellation):
                return self._client_app(message, context)
        except Exception as error:
            logger.exception("site %s", self._job.sites[node - 1].name)
            reason = Error(code=ErrorCode.CLIENT_APP_RAISED_EXCEPTION, reason=type(error).__name__)
            return Message(reason, reply_to=message)

    def _watch(self) -> None:
        while not self._job.stopped():
            time.sleep(_LOOK_S)
        self._cancellation.cancel()
