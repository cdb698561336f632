"""How to run a base classifier, and how to certify: the keyword arguments that all smoothed classifiers share."""

from __future__ import annotations

from typing import Any, TypedDict

from dualrs.certificates import Goal, SequenceName, Watch, deadline
from dualrs.sampling import Arithmetic, BackendName, GeneratorName, Precision


class Execution(TypedDict, total=False):
    """How base classifiers run and noise is drawn. Together with the weights this is the function that is certified.

    Attributes:
        backend: "auto" (the default) uses ONNX Runtime on the CPU where the module exports, and a compiled copy on
            CUDA; "torch", "compile" or "onnx" insist.
        device: where modules run ("cpu", "cuda", …).
        batch_size: noisy inputs per batch, 256 unless told; changes speed, not results.
        precision: in which modules compute: "float32" (the default), "bfloat16" or "float16".
        arithmetic: "float" (the default) adds float32 noise, as everybody does; "exact" draws noise on the grid of
            multiples of 1/255 from exact integer thresholds, so that certificates hold for the arithmetic that ran
            (Voráček & Hein 2023, arXiv 2207.07209). Inputs must then lie on that grid, as 8-bit images do.
        generator: of the noise: "sfc64" (the default), or the cryptographic "shake256".
    """

    backend: BackendName
    device: str
    batch_size: int
    precision: Precision
    arithmetic: Arithmetic
    generator: GeneratorName


USUAL: Execution = {
    "backend": "auto",
    "device": "cpu",
    "batch_size": 256,
    "precision": "float32",
    "arithmetic": "float",
    "generator": "sfc64",
}
"""What is used where nothing else is given."""

STOPPING = ("routed", "adaptive")
"""The rules whose bounds hold at every look, so that they can stop early and be watched."""


class FixedOptions(TypedDict, total=False):
    """How many votes a certificate may take, and what it claims with which confidence.

    Attributes:
        n0: selection samples of each stage, 100 unless told.
        n: the most estimation samples of each model, 10 000 unless told.
        alpha: failure probability α of the certificate, over the noise, for an input chosen without knowledge of
            it; 0.001 unless told.
    """

    n0: int
    n: int
    alpha: float


class CertifyOptions(FixedOptions, total=False):
    """The same, and when to stop; "adaptive" and "routed" certificates only.

    Attributes:
        tolerance: stop where the remaining samples would hardly raise the radius by more than this.
        target: stop as soon as it is decided whether the radius exceeds this.
        time_budget: stop after so many seconds with what is proved by then. The answer then depends on the clock.
        sequence: the confidence sequence: "spending" (the default; better for looks that are known beforehand) or
            "mixture".
    """

    tolerance: float
    target: float | None
    time_budget: float | None
    sequence: SequenceName


_GOALS = ("tolerance", "target", "time_budget")


def adaptive_arguments(options: CertifyOptions, watch: Watch | None = None) -> dict[str, Any]:
    """Gives the options, and who watches, as arguments of an adaptive procedure; a time budget starts to run now.

    Raises:
        TypeError: there is no such option.
        ValueError: one is outside of its range.
    """
    unknown = sorted(options.keys() - CertifyOptions.__annotations__.keys())
    if unknown:
        raise TypeError(f"unknown options {', '.join(unknown)}; known: {', '.join(CertifyOptions.__annotations__)}")
    arguments: dict[str, Any] = {name: value for name, value in options.items() if name not in _GOALS}
    budget = options.get("time_budget")
    arguments["goal"] = Goal(
        tolerance=options.get("tolerance", 0.0),
        target=options.get("target"),
        out_of_time=None if budget is None else deadline(budget),
        watch=watch,
    )
    return arguments


def fixed_arguments(rule: str, options: CertifyOptions, watch: Watch | None = None) -> dict[str, Any]:
    """Gives the options as arguments of a published procedure, which takes a fixed number of samples.

    Raises:
        ValueError: an option makes no sense for it, or someone is to watch.
    """
    meant = sorted(options.keys() - FixedOptions.__annotations__.keys())
    if meant:
        raise ValueError(
            f"rule {rule!r} takes a fixed number of samples, so {', '.join(meant)} cannot be given with it"
        )
    if watch is not None:
        raise ValueError(f"rule {rule!r} looks once, at the end, so there is nothing to watch")
    return dict(options)
