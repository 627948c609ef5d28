"""The version that is logged, sent in every message and compared by both sides."""

from importlib.metadata import version

__version__ = version("fedage")
