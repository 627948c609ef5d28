"""The policy file of a running site: read again when it changes, so that an administrator's change acts at once."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from contextlib import suppress
from pathlib import Path

from fedage.client.consent.policy.decide import Allowed, Facts, Refused, decide
from fedage.client.consent.policy.parse import PolicyErrors, load_policy
from fedage.client.consent.policy.types import Policy
from fedage.client.site.cancel import left_s, wait_for
from fedage.common.toml.problems import Problem
from fedage.common.toml.text import MAX_TOML_BYTES
from fedage.deploy.machine.bounded import read_at_most

POLICY_FILE = "policy.toml"
GRACE_S = 30.0
"""How long a message waits for a policy that cannot be read, as while somebody edits it; half of its time at most."""

DEFAULT_TEXT = """\
# What this site allows. Every line shows its default; fedage site policy show says the same in sentences.
# A mistake in this file stops every answer until it is mended: nothing falls back to a default unseen. A message waits
# up to 30 s for that, so that saving the file twice costs no round.

[requests]
# SHA-256 of each coordinator's public key that may ask; empty: the one pinned when this folder was made.
coordinators = []
# A site that only validates models leaves out "train".
kinds = ["describe", "train", "evaluate", "analyse"]
# Estimators that may run here; empty: any that is installed.
estimators = []
# What may leave although it is no sum over patients: "single-site-models", "robust-median".
exceptions = []
# Runs of one campaign file that are answered, ever: each brings models of its own, and each model is a question.
runs_per_campaign = 10
# Runs of all campaign files together on one data set: another file is another name for the same questions.
runs = 100
# Different cohorts of patients that may be asked for, and campaign files that may be approved, ever: the difference of
# two sums is about those who are in one of them only. An offer that is refused for its cohort counts too.
cohorts = 20
campaigns = 50

[approval]
# "manual": a person reads each campaign and types fedage site approve. "automatic": all that this file allows.
mode = "manual"
# The same for campaigns that validate a model made elsewhere (a bundle): its coordinator may choose it freely, so a
# person reads each such file unless this is "automatic" too.
bundles = "manual"

[disclosure]
# Fewest patients behind any number that leaves; a campaign may ask for more, never for fewer.
minimum_count = 10
# Largest share of one patient in the absolute contributions to a sum of products; a campaign may ask for less. 1: any.
largest_share = 0.5
# Fewest patients for each column whose products leave: products over fewer are the patients' columns turned by an angle
# that can be guessed. A campaign may ask for more. 0: any number, and then groups inside of a part are not checked.
patients_per_column = 2.0
# Age limits of cohorts are multiples of so many years: finer ones find out an age, limit by limit. 0: any; hospitals
# for children may need 1.
age_step_years = 5.0
# "required": only campaigns that hide this site's sums from the coordinator.
secure_aggregation = "optional"
# Hidden sums are opened over one set of sites. true: also over the others once this site has left, so that a campaign
# need not wait for it; what this site had in them then follows by subtraction, as without secure aggregation.
may_be_left_out = false
# true: where a campaign asks for results by site (privacy.results_by_site), this site tells its own beside the hidden
# sums: errors, bias line and groups, under the minimum count.
tells_own_results = false

# When work may begin, by this site's wall clock; a weekday left out is closed. Without the table: at any time.
# [hours]
# time_zone = "Europe/Berlin"
# monday = ["18:00-06:00"]
# saturday = ["00:00-24:00"]

# Patients offered. Without such a table: all in the store, and no budget. ε is counted over all campaigns, for good.
# From updates of a training without differential privacy, records of the patients trained on can be worked out. A data
# set with epsilon is trained on with differential privacy only; to ask for it of everybody: [data_sets.all], epsilon
# and delta. Exact regressions are trained without, so that such a data set refuses them.
# [data_sets.mammograms]
# modality = ["MG"]
# age_min_years = 40
# age_max_years = 75
# manufacturer = ["HOLOGIC, Inc."]
# epsilon = 8.0
# delta = 1e-5
"""


class PolicyFile:
    """`policy.toml` in a site's home."""

    def __init__(self, home: Path) -> None:
        self.path = home / POLICY_FILE
        self._lock = threading.Lock()
        self._seen = False
        self._read: tuple[tuple[int, ...] | None, Policy] | None = None

    def current(self) -> Policy:
        """The policy as the file has it now.

        Raises
        ------
        PolicyErrors
            If it has mistakes, cannot be read or has vanished. The policy before counts no more.
        """
        with self._lock:
            state = self._state()
            if state is None and self._seen:
                what = f"{self.path.name} was there and is gone; put it back, or restart the agent to go on without one"
                raise PolicyErrors((Problem("", what),), name=self.path.name)
            self._seen = state is not None
            if self._read is None or self._read[0] != state:
                self._read = None
                self._read = (state, load_policy(self.path))
            return self._read[1]

    def wait_until_readable(self) -> None:
        """Wait a little for a policy that cannot be read; whether it is then, `current` says.

        Attack: a policy that is broken for a moment is ignored, or the one before goes on to count. Rule: nothing is
        answered meanwhile. Raises `Cancelled` if nobody waits for the message any more.
        """
        until = time.monotonic() + min(GRACE_S, left_s() / 2)
        wait_for(lambda: self._is_readable() or time.monotonic() >= until, look_s=0.2)

    def _is_readable(self) -> bool:
        with suppress(PolicyErrors):
            self.current()
            return True
        return False

    def digest(self) -> str | None:
        """SHA-256 of the file as it is now, `sha256sum` prints the same; None if none can be read."""
        if not self.path.is_file():
            return None  # a pipe would be waited for
        try:
            return hashlib.sha256(read_at_most(self.path, most_bytes=MAX_TOML_BYTES)).hexdigest()
        except OSError:
            return None

    def decide(self, facts: Facts) -> Allowed | Refused:
        """Apply the policy as the file has it now; one that cannot be read refuses everything."""
        try:
            policy = self.current()
        except PolicyErrors:
            return Refused(
                rule="policy-unreadable",
                sentence="this site's policy cannot be read; its administrator mends it (fedage site policy check)",
            )
        return decide(policy, facts)

    def _state(self) -> tuple[int, ...] | None:
        """What changes whenever the file does, an edit within the clock's resolution of the last one included."""
        try:
            status = self.path.stat()
        except OSError:
            return None
        return (status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino, status.st_mode)


def write_default(path: Path) -> None:
    """Write the default policy with comments, mode 0600.

    Raises
    ------
    FileExistsError
        If there is one already: a policy is never overwritten.
    """
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(DEFAULT_TEXT)
