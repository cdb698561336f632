"""The commands that make models: train, label."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dualrs.cli._shared import Address, AsJson, Device, Engine, Engines, Threads, Workers, out, resumable, runner_for
from dualrs.progress import console as remarks

if TYPE_CHECKING:
    from dualrs.sampling import Runner
    from dualrs.training.pipeline import Pipeline


def train(
    config: Annotated[Path, typer.Argument(help="A training configuration (.yaml).")],
    plan_only: Annotated[
        bool, typer.Option("--plan", help="Say what is done, what is next and how long it will take; do nothing.")
    ] = False,
    device: Device = "cpu",
    as_json: AsJson = False,
) -> None:
    """Train a dual model: experts, labels, variance estimator, bundle.

    Every finished step is kept; run the same command again to go on after an interruption. Under torchrun or srun,
    several processes train together.

    Example: dualrs train configs/fashion-mnist.yaml --plan
    """
    from dualrs.data import name_of_split
    from dualrs.training.plan import render_plan
    from dualrs.training.processes import led

    with resumable():
        pipeline = _pipeline(config, device)
        plan = pipeline.plan()
        if plan_only:
            led(print)(json.dumps(plan.to_dict())) if as_json else led(out.print)(render_plan(plan))
            return
        led(remarks.print)(render_plan(plan))
        bundle = pipeline.run()
    data = name_of_split(pipeline.config.data, "test")
    if as_json:
        led(print)(json.dumps({"bundle": str(bundle), "data": data}))
    else:
        led(out.print)(f"bundle: {bundle}", soft_wrap=True)
        led(out.print)(f"certify it: dualrs certify {bundle} --data {data} --images 500", soft_wrap=True)


def label(
    config: Annotated[Path, typer.Argument(help="A training configuration (.yaml).")],
    device: Device = "cpu",
    engine: Engine = Engines.LOCAL,
    address: Address = None,
    workers: Workers = None,
    threads: Threads = None,
) -> None:
    """Build the variance estimator's labels: certified radii of training images, from few votes.

    Trains the experts first if they are not trained yet; resumes where it was interrupted. With a cluster, experts vote
    there.

    Example: dualrs label configs/fashion-mnist.yaml
    """
    from dualrs.training.processes import led

    runner = runner_for(engine, address=address, workers=workers, threads=threads, device=device)
    pipeline = _pipeline(config, device, runner)
    with resumable():
        pipeline.labels(pipeline.experts())
    led(out.print)(f"labels: {pipeline.folders.root / 'labels'}", soft_wrap=True)


def _pipeline(path: Path, device: str, runner: Runner | None = None) -> Pipeline:
    from dualrs.training.pipeline import open_pipeline

    return open_pipeline(path, device=device, runner=runner)
