"""What a coordinator asks of its SuperLink: start a run, see how it goes, stop it. Sites: `admission`.

Through Flower's own command line with JSON output, which is its stable surface. The app package that a run carries
holds configuration only; the code is what each side installed.
"""

from __future__ import annotations

import base64
import fcntl
import hashlib
import json
import re
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedage.common.errors import FedAgeError
from fedage.common.toml.text import MAX_TOML_BYTES
from fedage.common.version import __version__
from fedage.deploy.machine.bounded import FileTooLarge, read_text_at_most
from fedage.deploy.machine.processes import executable, flower_environment
from fedage.deploy.machine.settings import SettingsErrors, toml_tables
from fedage.server.superlink.home import CoordinatorHome

if TYPE_CHECKING:
    from flwr.supercore.control import ControlHttpClient

CONNECTION = "fedage"
SERVER_APP = "fedage.server.campaign.app:app"
CLIENT_APP = "fedage.client.node.app:app"
CAMPAIGN_KEY, DIGEST_KEY, RUN_NAME_KEY = "campaign", "campaign-digest", "run-name"

ConfigValue = bool | int | float | str

_COMMAND_TIMEOUT_S = 120.0
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
SITE_NAME = re.compile(r"^[a-z0-9][a-z0-9-]{0,62}$")


def write_connection(home: CoordinatorHome, *, port: int) -> None:
    """Tell the `flwr` command where this coordinator's SuperLink listens and which authority to trust."""
    home.flower_home.mkdir(mode=0o700, parents=True, exist_ok=True)
    lines = [
        "[superlink]",
        f'default = "{CONNECTION}"',
        f"[superlink.{CONNECTION}]",
        f'address = "127.0.0.1:{port}"',
        f"root-certificates = {json.dumps(str(home.ca_certificate))}",
    ]
    (home.flower_home / "config.toml").write_text("\n".join(lines) + "\n", encoding="utf-8")


def submit(
    home: CoordinatorHome,
    *,
    campaign_text: str,
    run_name: str,
    extra_config: Mapping[str, ConfigValue] | None = None,
    server_app: str = SERVER_APP,
    client_app: str = CLIENT_APP,
) -> int:
    """Start a run of a campaign and return Flower's id of it.

    Parameters
    ----------
    home
        The coordinator, whose SuperLink is running.
    campaign_text
        The campaign file. It arrives in the run's configuration as base64 under `campaign`, its SHA-256 under
        `campaign-digest`.
    run_name
        Arrives under `run-name`.
    extra_config
        More entries of the run's configuration.
    server_app, client_app
        Installed objects, as `module:attribute`.

    Raises
    ------
    FedAgeError
        If the SuperLink is not running or refuses.
    """
    content = campaign_text.encode()
    config: dict[str, ConfigValue] = {
        **(extra_config or {}),
        CAMPAIGN_KEY: base64.b64encode(content).decode(),
        DIGEST_KEY: hashlib.sha256(content).hexdigest(),
        RUN_NAME_KEY: run_name,
    }
    with tempfile.TemporaryDirectory(prefix="fedage-") as folder:
        app = Path(folder) / "fedage-campaign"
        app.mkdir()
        text = app_text(config, server_app=server_app, client_app=client_app)
        (app / "pyproject.toml").write_text(text, encoding="utf-8")
        answer = _flwr(home, "run", str(app), CONNECTION)
    return int(answer["run-id"])


def run_status(home: CoordinatorHome, run_id: int) -> str:
    """`pending`, `starting`, `running`, or `finished:` and how: `completed`, `failed`, `stopped`.

    Asked often while a campaign runs, so it is asked in this process; the command takes a second of CPU each time.

    Raises
    ------
    FedAgeError
        If the SuperLink is not running or knows no such run.
    """
    runs = _runs(home, run_id)
    if run_id not in runs:
        raise FedAgeError(f"the SuperLink knows no run {run_id}; its database was replaced, or the number is wrong")
    return runs[run_id]


def unfinished_runs(home: CoordinatorHome) -> list[int]:
    """Flower's numbers of the runs that have not ended, as far as the SuperLink knows.

    Raises
    ------
    FedAgeError
        If the SuperLink is not running.
    """
    return sorted(run for run, status in _runs(home, None).items() if not status.startswith("finished"))


def _runs(home: CoordinatorHome, run_id: int | None) -> dict[int, str]:
    """The status of one run, or of all."""
    from flwr.proto.control_pb2 import ListRunsRequest

    with control(home) as client:
        answer = client.ListRuns(ListRunsRequest(run_id=run_id) if run_id is not None else ListRunsRequest())
    return {
        run: f"{run_info.status.status}:{run_info.status.sub_status}"
        if run_info.status.sub_status
        else run_info.status.status
        for run, run_info in answer.run_dict.items()
    }


def running(home: CoordinatorHome) -> bool:
    """Whether a `fedage coordinator start` of this home lives."""
    file = home.root / "superlink.lock"
    if not file.exists():
        return False
    with file.open("r") as lock:
        try:
            # Shared, which `filelock` has not: two who look at once must not take each other for the SuperLink.
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


@contextmanager
def control(home: CoordinatorHome) -> Iterator[ControlHttpClient]:
    """Flower's own client of the SuperLink's control interface.

    Raises
    ------
    FedAgeError
        If the coordinator was never started, is not running, does not answer, or refuses; with which of these it is.
    """
    # Imported here: Flower takes half a second, and the other commands of a coordinator need none of it.
    import httpx
    from flwr.supercore.control import ControlHttpClient
    from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor

    client = ControlHttpClient.from_server_address(
        server_address=_address(home),
        insecure=False,
        root_certificates=home.ca_certificate.read_bytes(),
        interceptors=[RuntimeVersionHttpInterceptor(component_name="flwr CLI")],
    )
    try:
        yield client
    except httpx.HTTPStatusError as error:
        raise FedAgeError(f"the SuperLink refused: {_refusal(error.response.text)}") from None
    except httpx.HTTPError as error:
        raise FedAgeError(_not_answering(home, type(error).__name__)) from None
    finally:
        client.close()


def must_run(home: CoordinatorHome) -> None:
    """Raise unless a `fedage coordinator start` of this home lives.

    Raises
    ------
    FedAgeError
        With what to type.
    """
    _address(home)
    if not running(home):
        raise FedAgeError(_not_answering(home, ""))


def _not_answering(home: CoordinatorHome, what: str) -> str:
    if not running(home):
        return (
            f"the coordinator in {home.root} is not running; start it with fedage coordinator start --home {home.root}"
        )
    return (
        f"the SuperLink of {home.root} does not answer now ({what}); it may be starting again: try once more in some "
        f"seconds, and see {home.logs / 'superlink.log'}"
    )


def _refusal(text: str) -> str:
    """What Flower says of a refusal, on one line."""
    values = _json_in(text)
    return _plain(str(values.get("public_details") or values.get("message") or text or "it did not say why"))


def stop_run(home: CoordinatorHome, run_id: int) -> None:
    """Stop a run; one that has ended already, or ends meanwhile, stays as it is."""
    if run_status(home, run_id).startswith("finished"):
        return
    try:
        _flwr(home, "stop", str(run_id), CONNECTION)
    except FedAgeError:
        if not run_status(home, run_id).startswith("finished"):
            raise


def app_text(config: Mapping[str, ConfigValue], *, server_app: str, client_app: str) -> str:
    """The `pyproject.toml` of an app package without code."""
    entries = "\n".join(f"{json.dumps(key)} = {json.dumps(value)}" for key, value in config.items())
    return f"""[project]
name = "fedage-campaign"
version = "{__version__}"
description = "A campaign's configuration; the code is the fedage that each side installed"
license = {{ text = "Apache-2.0" }}
dependencies = []

[tool.flwr.app]
publisher = "fedage"

[tool.flwr.app.components]
serverapp = {json.dumps(server_app)}
clientapp = {json.dumps(client_app)}

[tool.flwr.app.config]
{entries}
"""


def _address(home: CoordinatorHome) -> str:
    try:
        file = home.flower_home / "config.toml"
        settings = toml_tables(read_text_at_most(file, most_bytes=MAX_TOML_BYTES), file=file)
        return str(settings["superlink"][CONNECTION]["address"])
    except (PermissionError, FileTooLarge) as error:
        raise FedAgeError(
            f"{error.filename} cannot be read ({error.strerror}); start the coordinator again, which writes it anew: "
            f"fedage coordinator start --home {home.root}"
        ) from None
    except (OSError, ValueError, KeyError, TypeError, SettingsErrors):
        raise FedAgeError(
            f"the coordinator in {home.root} has never been started; "
            f"start it with fedage coordinator start --home {home.root}"
        ) from None


def _flwr(home: CoordinatorHome, *arguments: str) -> dict[str, Any]:
    must_run(home)
    command = [str(executable("flwr")), *arguments, "--format", "json"]
    what = arguments[0]
    try:
        done = subprocess.run(
            command,
            env=flower_environment(home.flower_home),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_COMMAND_TIMEOUT_S,
            check=False,
            # Ctrl-C is for the command that called us; this one is short and must not be torn in two.
            start_new_session=True,
        )
    except subprocess.TimeoutExpired:
        raise FedAgeError(
            f"the SuperLink did not answer flwr {what} in {_COMMAND_TIMEOUT_S:g} s; see {home.logs / 'superlink.log'}"
        ) from None
    answer = _json_in(done.stdout)
    if done.returncode or not answer.get("success"):
        reason = _plain(str(answer.get("error-message") or done.stderr or done.stdout))
        raise FedAgeError(f"the SuperLink did not take flwr {what}: {reason}; see {home.logs / 'superlink.log'}")
    return answer


def _plain(output: str) -> str:
    """What a command said, on one line, without colours and without where to read on."""
    lines = (line.strip() for line in _COLOUR.sub("", output).splitlines())
    kept = [line for line in lines if line and "Exit Code:" not in line and not line.startswith("For more information")]
    return " ".join(kept)[-500:].rstrip(".")


def _json_in(output: str) -> dict[str, Any]:
    start = output.find("{")
    try:
        answer = json.loads(output[start:]) if start >= 0 else {}
    except json.JSONDecodeError:
        return {}
    return answer if isinstance(answer, dict) else {}
