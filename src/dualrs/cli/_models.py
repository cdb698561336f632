"""The commands that question a model: predict, attack, doctor."""

from __future__ import annotations

import json
import secrets
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from dualrs.cli._shared import (
    FAILED,
    INTERRUPTED,
    WRONG,
    Address,
    Alpha,
    AsJson,
    Device,
    Engine,
    Engines,
    Samples,
    Threads,
    Workers,
    data_of,
    open_data,
    out,
    resumable,
    runner_for,
)
from dualrs.progress import console as remarks


def predict(
    bundle: Annotated[str, typer.Argument(help="A bundle's folder, or the name of a shipped model.")],
    image: Annotated[Path, typer.Argument(help="An image file, or a .npy file with floats (C, H, W) in [0, 1].")],
    n: Samples = 10_000,
    alpha: Alpha = 0.001,
    radius: Annotated[bool, typer.Option("--radius", help="Certify a radius as well.")] = False,
    seed: Annotated[int | None, typer.Option(help="Seed of the noise; a fresh secret one if absent.")] = None,
    as_json: AsJson = False,
) -> None:
    """Predict one image's label, right with probability 1 − α, or abstain.

    The noise is secret by default: α holds for inputs chosen without knowledge of it. The seed is
    printed afterwards, so that the answer can be reproduced.

    Example: dualrs predict fashion-mnist shirt.png --radius
    """
    from dualrs.data import read_image
    from dualrs.smoothing import load

    model = load(bundle)
    x = read_image(image)
    used = secrets.randbits(63) if seed is None else seed
    decide = model.certify if radius else model.predict
    try:
        certificate = decide(x, n=n, alpha=alpha, seed=used)
    except ValueError as error:
        raise ValueError(f"{image}: {error}") from error
    name = model.classes[certificate.label] if model.classes and certificate.label is not None else None
    if as_json:
        print(json.dumps({**certificate.to_dict(), "class": name, "seed": str(used)}))
    else:
        out.print(f"{'' if name is None else name + ': '}{certificate}")
        out.print(f"seed {used}", style="dim")


def attack(
    run: Annotated[Path, typer.Argument(help="A run's folder, as dualrs certify writes it.")],
    images: Annotated[int | None, typer.Option(help="So many of its inputs, evenly spaced; all if absent.")] = None,
    method: Annotated[str, typer.Option(help="Whose certificates are audited.")] = "dual",
    aims: Annotated[
        str, typer.Option(help="Where to look, separated by commas.")
    ] = "label,choice,both,random,transfer",
    budgets: Annotated[str, typer.Option(help="Attack within these lengths too, beyond what is certified.")] = "",
    steps: Annotated[int, typer.Option(help="Steps of each gradient ascent.")] = 20,
    draws: Annotated[int, typer.Option(help="Draws of the noise in each step.")] = 32,
    n: Annotated[int, typer.Option("--n", help="The most votes of each base classifier for a decision.")] = 10_000,
    alpha: Annotated[float, typer.Option(help="Failure probability of all decisions on an input together.")] = 0.001,
    box: Annotated[bool, typer.Option("--box", help="Keep to the range of the model's inputs.")] = False,
    model: Annotated[str | None, typer.Option(help="The run's model, if it is no longer where it was.")] = None,
    data: Annotated[str | None, typer.Option(help="The run's data, if they are no longer where they were.")] = None,
    seed: Annotated[
        int | None, typer.Option(help="Of decisions and search; if absent, the audit's so far or a secret one.")
    ] = None,
    output: Annotated[Path | None, typer.Option(help="Where the results go; the run's folder if absent.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an audit in that folder.")] = False,
    engine: Engine = Engines.LOCAL,
    address: Address = None,
    workers: Workers = None,
    threads: Threads = None,
    as_json: AsJson = False,
) -> None:
    """Try to break a run's certificates inside their balls, and say whether more broke than bad luck explains.

    Every attempt is decided by sequential prediction with fresh noise. Exit code 3: the certificates are wrong.
    Finished images are on disk within seconds: after any interruption, run the same command again.

    Example: dualrs attack runs/quickstart --images 20 --budgets 0.5,1,2
    """
    from dualrs.evaluation import open_run
    from dualrs.evaluation.attack import audit_run, command_of, plan_of, render_audit
    from dualrs.models import bundle_digest, find_bundle
    from dualrs.smoothing import load

    record = open_run(run)
    changes = {name: value for name, value in {"model": model, "data": data}.items() if value is not None}
    command = command_of(record, **changes)
    folder = find_bundle(command.model)
    smoothed = load(folder, **command.execution)
    runner = runner_for(engine, address=address, workers=workers, threads=threads, device=command.device)
    with resumable():
        audit = audit_run(
            record,
            smoothed,
            open_data(command.data, smoothed, command.split),
            plan_of(aims, budgets, steps=steps, draws=draws, n=n, alpha=alpha, box=box),
            model_digest=bundle_digest(folder),
            output=output,
            overwrite=overwrite,
            method=method,
            images=images,
            seed=seed,
            runner=runner,
        )
    if as_json:
        print(json.dumps(audit.summary))
    else:
        out.print(render_audit(audit.summary))
        out.print(f"results: {output or run}", soft_wrap=True)
    if audit.failed:
        idx, failure = min(audit.failed.items())
        remarks.print(f"[red]Failed:[/] {len(audit.failed):,} images were set aside, the first, {idx}, for this:")
        remarks.print(failure.error, highlight=False, markup=False, soft_wrap=True)
    elif not audit.complete:
        again = "run the same command again, without --overwrite," if overwrite else "run the same command again"
        remarks.print(f"[yellow]Interrupted:[/] {again} to go on where this one stopped.")
    if audit.wrong or not audit.complete:
        raise typer.Exit(WRONG if audit.wrong else FAILED if audit.failed else INTERRUPTED)


def doctor(
    bundle: Annotated[str, typer.Argument(help="A bundle's folder, or the name of a shipped model.")],
    data: Annotated[
        str | None, typer.Option(help="Labelled data, or folder:PATH; a shipped model's own if absent.")
    ] = None,
    images: Annotated[int, typer.Option(help="How many inputs are certified at once.")] = 8,
    n: Samples = 10_000,
    alpha: Alpha = 0.001,
    device: Device = "cpu",
    batch_size: Annotated[int, typer.Option(help="Noisy inputs per batch.")] = 256,
    as_json: AsJson = False,
) -> None:
    """Examine a model before long runs: speed, largest radii, accuracy under noise, and what to do about them.

    Problems are findings, so the exit code is 0 all the same.

    Example: dualrs doctor fashion-mnist --n 100000
    """
    from dualrs.evaluation import diagnose, render_diagnosis
    from dualrs.smoothing import load

    model = load(bundle, device=device, batch_size=batch_size)
    name = data or data_of(bundle)
    with remarks.status(f"examining {escape(bundle)}"):
        diagnosis = diagnose(model, open_data(name, model) if name else None, images=images, n=n, alpha=alpha)
    if as_json:
        print(json.dumps(diagnosis.to_dict()))
    else:
        out.print(render_diagnosis(diagnosis))
