"""The options of a certification run, which override the fields of its configuration; absent ones are None."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from dualrs.evaluation.config import CertifyConfig

Data = Annotated[str | None, typer.Option(help="Data set, or folder:PATH.")]
Images = Annotated[int | None, typer.Option(help="So many images, evenly spaced.")]
Skip = Annotated[int | None, typer.Option(help="Every skip-th image.")]
Indices = Annotated[
    str | None, typer.Option(help="These images: a list such as 0-99,200, or a file with one index per line.")
]
Shard = Annotated[str | None, typer.Option(help="i/k: of all these the i-th of k shards.")]
Selection = Annotated[int | None, typer.Option(help="Selection samples of each stage.")]
Estimation = Annotated[int | None, typer.Option(help="Estimation samples of each stage.")]
Failure = Annotated[float | None, typer.Option(help="Failure probability of each certificate.")]
Rules = Annotated[
    list[str] | None,
    typer.Option(
        help="How a dual model is certified: routed, min; or a baseline: multiscale, multiscale-honest, largest, "
        "data-dependent. Repeat for several."
    ),
]
Tolerance = Annotated[
    float | None, typer.Option(help="Stop where more samples would gain hardly more radius than this.")
]
Target = Annotated[float | None, typer.Option(help="Stop when it is decided whether the radius exceeds this.")]
Arithmetic = Annotated[
    str | None, typer.Option(help="float, or exact: certificates that hold for the arithmetic that ran.")
]
RunDevice = Annotated[str | None, typer.Option(help="Where the networks run: cpu, cuda, …")]
BatchSize = Annotated[int | None, typer.Option(help="Noisy inputs per batch.")]


def is_configuration(model: str) -> bool:
    """Tells a configuration from a bundle or a shipped model."""
    return Path(model).suffix in {".yaml", ".yml"}


def configured(model: str, **options: Any) -> CertifyConfig:
    """The run that a configuration, or a model, and the options describe; options that are None are absent.

    Raises:
        ConfigError: they describe none.
    """
    from dualrs.config import parse_section
    from dualrs.evaluation.config import CertifyConfig, load_certify_config

    given = {name: value for name, value in options.items() if value is not None}
    if is_configuration(model):
        return load_certify_config(model, **given)
    fields = {"model": model, "output": Path("runs") / Path(model).name, **given}
    return parse_section(CertifyConfig, fields, source="the command line")
