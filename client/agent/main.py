"""The agent process: `python -m fedage.client.agent.main HOME`, started by the supervisor of a site."""

from __future__ import annotations

import argparse
import importlib
import logging
import os
import signal
import sys
import threading
import time
from logging.handlers import RotatingFileHandler
from pathlib import Path

from fedage.client.agent.service import Agent, App, serve, where
from fedage.client.inbox.sites import close_sites
from fedage.client.node import wire
from fedage.common.errors import FedAgeError
from fedage.deploy.machine.processes import end_with_parent

HANDLERS = "fedage.client.inbox.handlers:app"
_LOG_BYTES, _LOG_FILES = 10_000_000, 5
_STOP_S = 5.0

logger = logging.getLogger("fedage.agent")


def main(arguments: list[str] | None = None) -> int:
    """Serve until SIGTERM, SIGINT, or the parent's end."""
    parser = argparse.ArgumentParser(description="Serve a site's data zone on a unix socket.")
    parser.add_argument("home", type=Path, help="the site's home folder")
    parser.add_argument("--socket", type=Path, help="unix socket to listen on (default: HOME/run/agent.sock)")
    parser.add_argument("--shared-socket", action="store_true", help="the socket's group may connect too")
    parser.add_argument("--app", default=HANDLERS, help="ClientApp to run, as module:attribute")
    parser.add_argument("--max-bytes", type=int, default=wire.MAX_MESSAGE_BYTES, help="largest message accepted")
    options = parser.parse_args(arguments)

    home = options.home.resolve()
    _log_to(home / "logs" / "agent.log")
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    end_with_parent()
    try:
        app = _load(options.app)
        computes = _computes_on(home) if options.app == HANDLERS else ""
        agent = Agent(app, site_home=home, max_bytes=options.max_bytes, computes=computes)
        socket = options.socket or home / "run" / "agent.sock"
        serving = serve(agent, socket=socket, shared=options.shared_socket)
    except Exception as error:  # noqa: BLE001 - the log must say why, without the text
        logger.error("cannot start: %s", where(error))
        return 1
    logger.info("ready; %s", computes or "computes no network")
    stop.wait()
    serving.stop(grace=_STOP_S).wait()
    try:
        close_sites()
    except FedAgeError as error:
        logger.error("the site's files are not closed in order: %s", error)
    logger.info("stopped")
    return 0


def _computes_on(home: Path) -> str:
    # The handlers have loaded torch.
    from fedage.client.site.home import SiteHome
    from fedage.common.networks.devices import site_device_text

    return site_device_text(SiteHome.load(home).config.device)


def _load(path: str) -> App:
    module, _, attribute = path.partition(":")
    app: App = getattr(importlib.import_module(module), attribute)
    return app


def _log_to(file: Path) -> None:
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    handler = RotatingFileHandler(file, maxBytes=_LOG_BYTES, backupCount=_LOG_FILES)
    formatter = logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s", "%Y-%m-%dT%H:%M:%SZ")
    formatter.converter = time.gmtime
    handler.setFormatter(formatter)
    # Our own loggers only: another library's message may quote a value.
    fedage = logging.getLogger("fedage")
    fedage.addHandler(handler)
    fedage.setLevel(logging.INFO)
    fedage.propagate = False


if __name__ == "__main__":
    # A handler that ignores its cancellation must not keep the process alive once the server has stopped.
    code = main()
    logging.shutdown()
    sys.stdout.flush()
    os._exit(code)
