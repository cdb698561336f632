"""The command that says what others will take: plan."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from dualrs.cli._options import (
    Arithmetic,
    BatchSize,
    Data,
    Estimation,
    Failure,
    Images,
    Indices,
    Rules,
    RunDevice,
    Selection,
    Shard,
    Skip,
    Target,
    Tolerance,
    configured,
    is_configuration,
)
from dualrs.cli._shared import AsJson, open_data, out
from dualrs.cli._training import train


def plan(
    model: Annotated[
        str,
        typer.Argument(
            help="A configuration of a run or of a training (.yaml), a bundle's folder, or a shipped model."
        ),
    ],
    data: Data = None,
    images: Images = None,
    skip: Skip = None,
    indices: Indices = None,
    shard: Shard = None,
    n0: Selection = None,
    n: Estimation = None,
    alpha: Failure = None,
    rule: Rules = None,
    tolerance: Tolerance = None,
    target: Target = None,
    arithmetic: Arithmetic = None,
    seed: Annotated[int | None, typer.Option(hidden=True)] = None,
    output: Annotated[Path | None, typer.Option(hidden=True)] = None,
    overwrite: Annotated[bool | None, typer.Option("--overwrite", hidden=True)] = None,
    device: RunDevice = None,
    batch_size: BatchSize = None,
    sample: Annotated[int, typer.Option(help="Images that are voted on to find out, at most.")] = 128,
    votes: Annotated[int, typer.Option(help="Votes of each base classifier on each of them.")] = 100,
    devices: Annotated[int, typer.Option(help="The most devices to plan for.")] = 8,
    price: Annotated[float | None, typer.Option(help="Of one device for an hour, in whatever currency.")] = None,
    radii: Annotated[str, typer.Option(help="Of the certified accuracies, separated by commas.")] = "0.25,0.5,1",
    as_json: AsJson = False,
) -> None:
    """Forecast what a run will take, and what would save some of it: votes, time, memory, cost. Certifies nothing.

    Takes what dualrs certify takes; a few votes on a few of the images are measured, the rest is simulated. Of a
    training it says what dualrs train --plan says.

    Example: dualrs plan cifar10 --data cifar10 --images 500 --price 2.5
    """
    run: dict[str, Any] = {
        "data": data, "images": images, "skip": skip, "indices": indices, "shard": shard, "n0": n0, "n": n,
        "alpha": alpha, "rules": rule or None, "tolerance": tolerance, "target": target, "arithmetic": arithmetic,
        "seed": seed, "output": output, "overwrite": overwrite, "batch_size": batch_size,
    }  # fmt: skip
    if is_configuration(model) and _is_training(model):
        if meant := [f"--{name.replace('_', '-')}" for name, value in run.items() if value is not None]:
            raise ValueError(f"{model} is a training, which {', '.join(meant)} cannot be given with")
        train(Path(model), plan_only=True, device=device or "cpu", as_json=as_json)
        return

    from dualrs.evaluation import forecast, render_forecast
    from dualrs.models import find_bundle
    from dualrs.smoothing import load

    if devices < 1:
        raise ValueError(f"--devices must be at least 1; got {devices}")
    config = configured(model, **run, device=device)
    smoothed = load(find_bundle(config.model), **config.execution)
    dataset = open_data(config.data, smoothed, config.split)
    found = forecast(
        smoothed,
        dataset,
        indices=config.positions(len(dataset)),
        shard=config.part,
        seed=config.seed,
        rules=config.rules,
        global_sigmas=config.global_sigmas,
        sample=sample,
        votes=votes,
        devices=sorted({*(2**power for power in range(devices.bit_length())), devices}),
        price=price,
        radii=_numbers(radii),
        **config.options,
    )
    if as_json:
        print(json.dumps(found.to_dict()))
    else:
        out.print(render_forecast(found))


def _is_training(path: str) -> bool:
    """A run names its model, a training its experts."""
    from dualrs.config import read_yaml

    content = read_yaml(path)
    return isinstance(content, dict) and "model" not in content and "experts" in content


def _numbers(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError as error:
        raise ValueError(f"--radii are numbers separated by commas; got {text!r}") from error
