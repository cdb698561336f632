"""Certification runs as configurations: which model, on which inputs, with which guarantee."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from dualrs.config import Section, parse_section, read_yaml
from dualrs.sampling import Arithmetic, BackendName, GeneratorName, Precision
from dualrs.smoothing import CertifyOptions, Execution


class CertifyConfig(Section):
    """Everything that `dualrs certify` needs."""

    model: str = Field(description="a bundle's folder, or the name of a shipped model")
    data: str = Field(description="a data set's name (see `dualrs data list`) or folder:PATH")
    split: Literal["train", "test"] = "test"
    images: int | None = Field(default=None, gt=0, description="so many, evenly spaced; all if absent")
    skip: int | None = Field(default=None, gt=0, description="every skip-th image instead")
    n0: int = Field(default=100, gt=0, description="selection samples of each stage")
    n: int = Field(default=10_000, gt=0, description="estimation samples of each stage")
    alpha: float = Field(default=0.001, gt=0, lt=1, description="failure probability of each certificate")
    rules: list[str] | None = Field(
        default=None, min_length=1, description="routed, min (dual models), adaptive, cohen (one σ); the first counts"
    )
    tolerance: float = Field(default=0.0, ge=0, description="stop where more samples would gain hardly more radius")
    target: float | None = Field(
        default=None, ge=0, description="stop when it is decided whether the radius exceeds it"
    )
    seed: int = Field(default=0, description="of the noise")
    global_sigmas: bool = Field(default=True, description="compare with each expert at its own σ")
    output: Path = Field(description="the run's folder")
    overwrite: bool = Field(default=False, description="replace results that are in the folder already")
    backend: BackendName = "auto"
    device: str = "cpu"
    batch_size: int = Field(default=256, gt=0)
    precision: Precision = "float32"
    arithmetic: Arithmetic = Field(default="float", description="exact: certificates hold for the arithmetic that ran")
    generator: GeneratorName = Field(default="sfc64", description="of the noise; shake256 is cryptographic")

    @model_validator(mode="after")
    def _one_selection(self) -> CertifyConfig:
        if self.images is not None and self.skip is not None:
            raise ValueError(f"give images or skip, not both; got images={self.images} and skip={self.skip}")
        return self

    @property
    def execution(self) -> Execution:
        """How the model runs."""
        return {
            "backend": self.backend,
            "device": self.device,
            "batch_size": self.batch_size,
            "precision": self.precision,
            "arithmetic": self.arithmetic,
            "generator": self.generator,
        }

    @property
    def options(self) -> CertifyOptions:
        """How its inputs are certified."""
        return {
            "n0": self.n0,
            "n": self.n,
            "alpha": self.alpha,
            "tolerance": self.tolerance,
            "target": self.target,
        }

    def indices(self, size: int) -> list[int]:
        """The positions of the chosen inputs in a data set of this size."""
        if self.skip is not None:
            return list(range(0, size, self.skip))
        return evenly_spaced(self.images or size, size)


def evenly_spaced(count: int, size: int) -> list[int]:
    """Positions of ``count`` inputs spread evenly over a data set of ``size``; all if it has no more."""
    count = min(count, size)
    return [i * size // count for i in range(count)]


def load_certify_config(path: str | Path, **changes: object) -> CertifyConfig:
    """Reads and validates a certification run, with some fields set anew.

    Raises:
        ConfigError: the file is missing, is not YAML, or a field is unknown, missing or out of range.
    """
    content = read_yaml(path)
    if isinstance(content, dict):
        content = {**content, **changes}
    return parse_section(CertifyConfig, content, source=str(path))
