"""From another machine, only what SuperNodes need: whoever starts runs at a coordinator runs code beside its key."""

from __future__ import annotations

import asyncio
import inspect
import socket
import ssl
import urllib.error
import urllib.request
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from flwr.superlink import main as superlink_main

from fedage.server.superlink.home import init_home
from fedage.server.superlink.superlink import SuperLink
from fedage.server.superlink.superlink_main import LocalUnlessFleet, may_pass

AWAY, HERE = ("192.0.2.7", 40000), ("127.0.0.1", 40000)


@pytest.mark.parametrize(
    ("path", "client", "passes"),
    [
        ("/v1/fleet/pull-messages", AWAY, True),
        ("/health", AWAY, True),
        ("/v1/control/start-run", AWAY, False),
        ("/v1/control/register-node", AWAY, False),
        ("/v1/runtime/acquire-task", AWAY, False),
        ("/docs", AWAY, False),
        ("/", AWAY, False),
        ("/v1/fleetish/x", AWAY, False),
        ("/healthy", AWAY, False),
        ("/v1/control/start-run", None, False),
        ("/v1/control/start-run", ("", 0), False),
        ("/v1/control/start-run", ("::ffff:192.0.2.7", 1), False),
        ("/v1/control/start-run", HERE, True),
        ("/v1/control/start-run", ("::1", 1), True),
        ("/v1/control/start-run", ("::ffff:127.0.0.1", 1), True),
    ],
)
def test_who_reaches_what(path: str, client: tuple[str, int] | None, passes: bool) -> None:
    assert may_pass(path, client=client) is passes


def call(scope: dict[str, Any]) -> tuple[list[str], list[dict[str, Any]]]:
    reached: list[str] = []
    sent: list[dict[str, Any]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        reached.append(scope["type"])

    async def send(event: Any) -> None:
        sent.append(event)

    async def receive() -> dict[str, Any]:
        return {}

    asyncio.run(LocalUnlessFleet(app)(scope, receive, send))
    return reached, sent


def test_the_middleware_answers_for_the_app() -> None:
    assert call({"type": "lifespan"}) == (["lifespan"], [])
    assert call({"type": "http", "path": "/v1/fleet/x", "client": AWAY}) == (["http"], [])
    reached, sent = call({"type": "http", "path": "/v1/control/x", "client": AWAY})
    assert (reached, sent[0]["status"]) == ([], 403)
    reached, sent = call({"type": "websocket", "path": "/v1/control/x", "client": AWAY})
    assert (reached, sent[0]["type"]) == ([], "websocket.close")


def test_flower_still_has_the_door_where_it_is_guarded() -> None:
    source = inspect.getsource(import_module("flwr.superlink.cli.flower_superlink"))
    assert "from flwr.superlink.main import (" in source
    assert "fastapi_app = create_app(" in source
    assert callable(superlink_main.create_app)
    prefixes = [import_module(f"flwr.superlink.routers.{name}.router").router.prefix for name in ("fleet", "control")]
    assert prefixes == ["/v1/fleet", "/v1/control"]


def address_of_this_machine() -> str | None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return None
        return str(probe.getsockname()[0])


@pytest.mark.processes
def test_a_running_superlink_refuses_control_from_outside(tmp_path: Path) -> None:
    address = address_of_this_machine()
    if address is None or address.startswith("127."):
        pytest.skip("this machine has no network but loopback")
    home = init_home(tmp_path / "c", hosts=(address,))
    assert home.config.host == "0.0.0.0"
    trusted = ssl.create_default_context(cafile=str(home.ca_certificate))

    def status(host: str, path: str) -> int:
        request = urllib.request.Request(f"https://{host}:{link.port}{path}", data=b"")
        try:
            with urllib.request.urlopen(request, timeout=5, context=trusted) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            with error:
                return error.code

    with SuperLink(home, port=0) as link:
        assert link.address == f"{address}:{link.port}"
        assert status(address, "/v1/control/list-runs") == 403
        assert status(address, "/v1/runtime/acquire-task") == 403
        assert status("127.0.0.1", "/v1/control/list-runs") != 403
        assert status(address, "/v1/fleet/pull-messages") != 403
