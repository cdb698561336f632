"""``run.json``: what a run was made with and asked for, by which it is continued, refused or merged."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Set
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from dualrs.evaluation.indices import Indices
from dualrs.evaluation.selection import format_indices, parse_ranges
from dualrs.files import write_json
from dualrs.settings import changes

MANIFEST = "run.json"
_FORMAT = 1
_INCIDENTAL = {
    ("data", "name"),  # a folder's, where the data set is one; the digest decides
    ("model", "num_classes"),  # which some models learn from their first answer
}


class RunError(ValueError):
    """A run's folder that cannot be used as asked; the message says why, and what can be done."""


@dataclass(frozen=True)
class Manifest:
    """What must be known of a run to go on with it, to audit it and to repeat it.

    Attributes:
        made_with: all that a certificate depends on beside its input, as JSON values.
        requested: the inputs that the folder is to hold, by `idx`.
        whole: the selection that they are a shard of; the same inputs unless there are shards.
        sessions: when, where and with what software the run was worked on, and how far it got each time.
        certificates: digests of the file of certificates: of the one that is there, and of one that may replace it.
    """

    made_with: Mapping[str, Any]
    requested: Set[int]
    whole: Set[int]
    sessions: tuple[Mapping[str, Any], ...] = ()
    certificates: tuple[str, ...] = ()

    @property
    def methods(self) -> list[str]:
        """The methods that every input is certified with."""
        return list(self.made_with["certification"]["methods"])

    @property
    def key(self) -> bytes:
        """A digest of what the run was made with: runs with one key have the same certificates."""
        return hashlib.sha256(json.dumps(_decisive(self.made_with), sort_keys=True).encode()).digest()

    def changes(self, other: Manifest) -> str:
        """What the other run was made with that this one was not; empty if both have the same certificates."""
        return "" if self.key == other.key else changes(self.made_with, other.made_with)

    def write(self, path: Path) -> None:
        """Replaces a manifest by this one."""
        content = {
            "format": _FORMAT,
            "made_with": self.made_with,
            "requested": format_indices(self.requested),
            "whole": format_indices(self.whole),
            "certificates": self.certificates,
            "sessions": self.sessions,
        }
        write_json(path, content)


def read_manifest(path: Path) -> Manifest:
    """Reads a manifest.

    Raises:
        FileNotFoundError: there is none.
        RunError: it is damaged, or of a format that this version does not know.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["format"] != _FORMAT:
            raise ValueError(f"it has format {content['format']}; this version of dualrs reads {_FORMAT}")
        manifest = Manifest(
            made_with=content["made_with"],
            requested=_indices(content["requested"]),
            whole=_indices(content["whole"]),
            sessions=tuple(content["sessions"]),
            certificates=tuple(content["certificates"]),
        )
        manifest.key, manifest.methods  # noqa: B018 — all that is asked of it later is there
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise RunError(f"{path} does not describe a run ({reason}): restore it, or overwrite the run") from error
    return manifest


def _indices(text: str) -> Indices:
    return Indices(chain.from_iterable(parse_ranges(text)))


def _decisive(made_with: Mapping[str, Any]) -> dict[str, Any]:
    """What decides on certificates, without what is there for readers only."""
    return {
        part: {name: value for name, value in about.items() if (part, name) not in _INCIDENTAL}
        for part, about in made_with.items()
    }
