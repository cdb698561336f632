"""What is said where an optional library is missing."""

from __future__ import annotations


def missing(what: str, extra: str) -> ImportError:
    """The error that names the extra to install.

    Args:
        what: is missing, or cannot be done without it.
        extra: of dualrs that brings it.
    """
    return ImportError(f"{what}: pip install 'dualrs[{extra}]'")
