"""What is said where an optional library is missing."""

from __future__ import annotations


def missing(what: str, extra: str) -> ImportError:
    """The error that names the extra to install."""
    return ImportError(f"{what} is not installed here: pip install 'dualrs[{extra}]'")
