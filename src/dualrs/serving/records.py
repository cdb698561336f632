"""Audit records: what was answered, with the seed and all that it takes to find the same answer again."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dualrs.certificates import Certificate
from dualrs.evaluation.metadata import describe_functions, software
from dualrs.sampling import Job, input_digest
from dualrs.serving.ticket import OPTIONS, Asked, Ticket
from dualrs.settings import changes
from dualrs.smoothing import DualSmoothedClassifier, SmoothedClassifier

FORMAT = 1


def record_of(
    ticket: Ticket,
    certificates: Mapping[str, Certificate],
    *,
    request: str,
    model: Mapping[str, Any],
    functions: Mapping[str, Any],
    noise: str,
    keep_input: bool,
) -> dict[str, Any]:
    """The audit record of an answer, as JSON values. It has the seed: to be shown with the answer, never before.

    Args:
        ticket: what was asked.
        certificates: by rule.
        request: its id.
        model: name, digest, and with what it was loaded.
        functions: the base classifiers as they ran.
        noise: what drew it, by name.
        keep_input: whether the record holds the input, and not only its digest.
    """
    return {
        "format": FORMAT,
        "request": request,
        "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "model": dict(model),
        "input": {
            "digest": input_digest(ticket.x).hex(),
            "shape": list(ticket.x.shape),
            "values": encoded(ticket.x) if keep_input else None,
        },
        "asked": {"rules": list(ticket.asked.rules), "options": dict(ticket.asked.options)},
        "anytime": ticket.asked.anytime,
        "seed": str(ticket.seed),  # many readers of JSON, browsers among them, round numbers of this size
        "ended": ticket.ending,
        "certificates": {rule: certificate.to_dict() for rule, certificate in certificates.items()},
        "functions": dict(functions),
        "noise": noise,
        "software": _software(),
    }


@cache
def _software() -> dict[str, Any]:
    return software()


class RecordFile:
    """Appends records to a file, a line each, from any thread; written before the answer is given.

    Args:
        path: of the file; its folder is made.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        path.chmod(0o600)  # seeds, and perhaps inputs
        self._path, self._lock = path, threading.Lock()

    def append(self, record: Mapping[str, Any]) -> None:
        """Writes a record."""
        line = json.dumps(record, ensure_ascii=False, allow_nan=False)
        with self._lock, self._path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")


@dataclass(frozen=True)
class Verification:
    """What replaying a record showed.

    Attributes:
        same: by rule, whether the very certificate on record was found again.
        found: by rule, the last certificate of the replay.
        remarks: what differs between then and now, and need not matter.
    """

    same: Mapping[str, bool]
    found: Mapping[str, Certificate]
    remarks: tuple[str, ...]

    @property
    def verified(self) -> bool:
        """Whether all certificates on record were found again."""
        return all(self.same.values())


def encoded(x: Tensor) -> str:
    """An input's values as float32, little-endian, in base64; see `input_on_record`."""
    return base64.b64encode(x.numpy().astype("<f4").tobytes()).decode()


def input_on_record(record: Mapping[str, Any]) -> Tensor | None:
    """The input that a record holds; None if it has only the digest."""
    kept = record["input"]["values"]
    if kept is None:
        return None
    values = np.frombuffer(base64.b64decode(kept, validate=True), dtype="<f4").astype(np.float32)
    return torch.from_numpy(values.reshape(record["input"]["shape"]))


def verify(
    record: Mapping[str, Any],
    model: SmoothedClassifier | DualSmoothedClassifier,
    x: Tensor,
    *,
    digest: str | None = None,
) -> Verification:
    """Certifies an input again as a record says, and compares the certificates, votes and all.

    A record whose sampling was ended early has one of the certificates that held on the way.

    Args:
        record: of an answer of the service.
        model: the model that answered.
        x: the input.
        digest: of the model's bundle; None does not compare it.

    Raises:
        ValueError: the record is damaged, or is about another input, model or noise than these.
    """
    try:
        if record["format"] != FORMAT:
            raise ValueError(f"the record has format {record['format']!r}; this version reads {FORMAT}")
        wanted = {rule: Certificate.from_dict(fields) for rule, fields in record["certificates"].items()}
        asked = Asked(tuple(record["asked"]["rules"]), record["asked"]["options"], bool(record["anytime"]))
        if asked.options.keys() - OPTIONS or set(asked.rules) != wanted.keys():
            raise ValueError(f"the record is damaged: it asks for {record['asked']}, and has {list(wanted)}")
        about, seed = record["input"]["digest"], int(record["seed"])
        then, noise, known = record["functions"], record["noise"], record["model"]["digest"]
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"this is no audit record of dualrs: {type(error).__name__}: {error}") from error
    x = model.to_input(x)
    if input_digest(x).hex() != about:
        raise ValueError(
            f"the record is about another input: its digest is {about}, this one's {input_digest(x).hex()}"
        )
    if digest is not None and digest != known:
        raise ValueError(f"the record is about another model: its digest is {known}, this one's {digest}")
    engine = model.engine()
    if engine.noise.name != noise:
        raise ValueError(f"the noise on record is {noise}, here it is {engine.noise.name}: install the same versions")
    now = describe_functions(model, x.shape)
    remarks = () if now == then else (f"the base classifiers run differently here ({changes(then, now)})",)
    seen = {rule: _Seen(certificate) for rule, certificate in wanted.items()}
    procedures = {rule: asked.procedure(model, rule, seen[rule].watch) for rule in asked.rules}
    (result,) = engine.run([Job("record", x, procedures, seed)])
    found = {rule: outcome.certificate for rule, outcome in result.outcomes.items()}
    same = {rule: seen[rule].met or found[rule] == certificate for rule, certificate in wanted.items()}
    return Verification(same, found, remarks)


class _Seen:
    """Whether a certificate was among those that held on the way; one that claims nothing holds before any vote."""

    def __init__(self, certificate: Certificate) -> None:
        self._certificate = certificate
        self.met = certificate.abstained and not certificate.stages

    def watch(self, certificate: Certificate) -> bool:
        self.met = self.met or certificate == self._certificate
        return self.met
