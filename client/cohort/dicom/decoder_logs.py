"""Keep texts from files, which pydicom and its decoders quote, out of the log."""

from __future__ import annotations

import logging
import re
import sys
import warnings

_MODULES = r"(pydicom|libjpeg|openjpeg)(\.|$)"
_LOGGERS = ("pydicom", "libjpeg", "openjpeg", "pylibjpeg")


def silence_decoders() -> None:
    """Silence the warnings and loggers of pydicom and its decoders in this process; cheap when repeated.

    Their texts quote values and file names, which may identify patients. `warnings.catch_warnings` swaps the filters of
    the whole process and puts them back, which goes wrong between threads; so one filter for these modules is added
    before a read and left in place.
    """
    entry = ("ignore", None, Warning, re.compile(_MODULES), 0)
    if entry not in warnings.filters:
        warnings.filterwarnings("ignore", module=_MODULES)
    for name in _LOGGERS:
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    if (gdcm := sys.modules.get("gdcm")) is not None:  # pydicom imports it where it is installed; it writes to stderr
        for turn_off in (gdcm.Trace.DebugOff, gdcm.Trace.WarningOff, gdcm.Trace.ErrorOff):
            turn_off()
