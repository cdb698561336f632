"""What ``model.json`` of a bundle says, and whether it can be true."""

from __future__ import annotations

import hashlib
from itertools import pairwise
from math import isfinite
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

MANIFEST = "model.json"


class BundleError(ValueError):
    """A folder that is no usable bundle; the message says what is wrong with it."""


PLAIN_NAME = r"^[A-Za-z0-9][A-Za-z0-9._+-]*$"
"""What a file of a bundle may be called: no separators and no leading dot, so it stays within the folder."""
_FileName = Annotated[str, Field(pattern=PLAIN_NAME)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class PartEntry(_Strict):
    """One part: its file, the digest of that, and the network that the weights are for, if it is not ONNX."""

    file: _FileName
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    network: str | None = None
    arguments: dict[str, Any] = {}


class _InputEntry(_Strict):
    shape: tuple[int, ...]
    range: tuple[float, float]


class Manifest(_Strict):
    """The content of ``model.json``, checked."""

    format: Literal["dualrs-bundle"]
    version: Literal[1]
    num_classes: int = Field(ge=2)
    sigmas: tuple[float, ...] = Field(min_length=1)
    experts: tuple[str, ...]
    names: tuple[Annotated[str, Field(min_length=1)], ...] | None = None
    sigma_e: float | None = None
    classes: tuple[str, ...] | None = None
    input: _InputEntry | None = None
    parts: dict[_FileName, PartEntry]
    info: dict[str, Any] = {}

    @model_validator(mode="after")
    def _consistent(self) -> Manifest:
        needed = {*self.experts, *(["estimator"] if self.sigma_e is not None else [])}
        if missing := sorted(needed - set(self.parts)):
            raise ValueError(f"parts {missing} are named but not described")
        if len(self.experts) != len(self.sigmas):
            raise ValueError(f"{len(self.sigmas)} sigmas need as many experts; got {len(self.experts)}")
        levels = (*self.sigmas, *([] if self.sigma_e is None else [self.sigma_e]))
        if any(not (isfinite(s) and s > 0) for s in levels) or any(a > b for a, b in pairwise(self.sigmas)):
            raise ValueError(f"noise levels are positive and sigmas ascend; got {self.sigmas}, sigma_e {self.sigma_e}")
        if (self.sigma_e is None) != (len(self.sigmas) == 1):
            raise ValueError(
                f"one expert needs no estimator, several need one; got {self.sigmas}, sigma_e {self.sigma_e}"
            )
        names: tuple[object, ...] = self.sigmas if self.names is None else self.names
        if len(names) != len(self.sigmas) or len({*names, "estimator"}) <= len(names):
            raise ValueError(
                f"experts that share a σ need names, one each and none of them twice or the estimator's; got "
                f"{self.names} for {self.sigmas}"
            )
        if self.classes is not None and len(self.classes) != self.num_classes:
            raise ValueError(f"{self.num_classes} classes have {len(self.classes)} names")
        return self


def bundle_digest(folder: str | Path) -> str:
    """The SHA-256 of ``model.json``, which contains the digest of every other file: it names the model."""
    return hashlib.sha256((Path(folder) / MANIFEST).read_bytes()).hexdigest()


def read_manifest(folder: Path) -> Manifest:
    """Reads and checks ``model.json``; of the files that it names, none is touched.

    Raises:
        BundleError: there is no such file, or it does not describe a bundle.
    """
    path = folder / MANIFEST
    try:
        return Manifest.model_validate_json(path.read_bytes())
    except OSError as error:
        raise BundleError(f"{folder} is not a bundle: it has no readable {MANIFEST}") from error
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(str(part) for part in problem['loc']) or 'the file'}: {problem['msg']}"
            for problem in error.errors()
        )
        raise BundleError(f"{path} does not describe a bundle: {problems}") from error


def bundle_files(folder: str | Path) -> dict[str, str]:
    """The SHA-256 that ``model.json`` gives for each file that it names: all that belongs to a bundle beside itself.

    Raises:
        BundleError: there is no such file, or it does not describe a bundle.
    """
    return {entry.file: entry.sha256 for entry in read_manifest(Path(folder)).parts.values()}
