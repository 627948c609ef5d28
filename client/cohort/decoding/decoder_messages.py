"""Messages between a decoder's process and the process that started it: kinds of requests, and limits of an answer."""

from __future__ import annotations

import struct

TIME_LIMIT_S = 60
"""Longest that one file may take."""
MAX_TEXT_BYTES = 2**16
LENGTH = struct.Struct(">Q")
IMAGE, VOLUME, VOLUME_FACTS, SLICE, ENHANCED = "image", "volume", "volume-facts", "slice", "enhanced"
