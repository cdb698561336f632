"""The commands that make runs: quickstart, certify, merge."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

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
)
from dualrs.cli._shared import (
    FAILED,
    INTERRUPTED,
    Address,
    AsJson,
    Engine,
    Engines,
    Samples,
    Threads,
    Workers,
    open_data,
    out,
    runner_for,
)
from dualrs.progress import console as remarks
from dualrs.progress import remark

if TYPE_CHECKING:
    from dualrs.evaluation import Evaluation
    from dualrs.evaluation.config import CertifyConfig
    from dualrs.sampling import Runner


def quickstart(
    dataset: Annotated[
        str, typer.Option(help="The shipped model to certify: fashion-mnist or cifar10.")
    ] = "fashion-mnist",
    images: Annotated[int, typer.Option(help="How many test images, evenly spaced.")] = 100,
    n: Samples = 2_000,
    output: Annotated[Path, typer.Option(help="Where the results go.")] = Path("runs/quickstart"),
    as_json: AsJson = False,
) -> None:
    """Certify real test images with a shipped model: a table, a picture, a file of certificates.

    Fashion-MNIST needs no download (its test images are in the package). Results of an earlier
    quickstart are replaced.

    Example: dualrs quickstart --images 20 --n 10000
    """
    data = "fashion-mnist-sample" if dataset == "fashion-mnist" else dataset
    config = configured(dataset, data=data, images=images, n=n, output=output, overwrite=True)
    _certify(config, None, as_json=as_json)


def certify(
    model: Annotated[str, typer.Argument(help="A configuration (.yaml), a bundle's folder, or a shipped model.")],
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
    seed: Annotated[int | None, typer.Option(help="Seed of the noise.")] = None,
    output: Annotated[Path | None, typer.Option(help="The run's folder.")] = None,
    overwrite: Annotated[
        bool | None, typer.Option("--overwrite", help="Begin anew, and replace what is in that folder.")
    ] = None,
    device: RunDevice = None,
    batch_size: BatchSize = None,
    engine: Engine = Engines.LOCAL,
    address: Address = None,
    workers: Workers = None,
    threads: Threads = None,
    as_json: AsJson = False,
) -> None:
    """Certify a model on a data set: the dual model, every single σ, and the oracle, sharing votes.

    Options override the fields of a configuration. Finished images are on disk within seconds: after any interruption,
    run the same command again. With other images it adds those to the run; with other settings it is refused. Images on
    which the model fails are set aside (failed.json, exit code 4), and the others go on. On a cluster the certificates
    are the same.

    Example: dualrs certify cifar10 --data cifar10 --images 500 --output runs/cifar10
    """
    config = configured(
        model, data=data, images=images, skip=skip, indices=indices, shard=shard, n0=n0, n=n, alpha=alpha,
        rules=rule or None, tolerance=tolerance, target=target, arithmetic=arithmetic, seed=seed, output=output,
        overwrite=overwrite, device=device, batch_size=batch_size,
    )  # fmt: skip
    runner = runner_for(engine, address=address, workers=workers, threads=threads, device=config.device)
    _certify(config, runner, as_json=as_json)


def merge(
    runs: Annotated[list[Path], typer.Argument(help="The folders of runs that share all settings.")],
    output: Annotated[Path, typer.Option(help="The merged run's folder.")],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace results in that folder.")] = False,
    as_json: AsJson = False,
) -> None:
    """Put the shards of a run together.

    Says which images are still missing; certify them with the same settings into the merged folder.

    Example: dualrs merge runs/shard-1 runs/shard-2 --output runs/cifar10
    """
    from dualrs.evaluation import format_indices, merge_runs

    evaluation = merge_runs(runs, output, overwrite=overwrite)
    _show(evaluation, as_json=as_json)
    if evaluation.missing:
        remark(f"{len(evaluation.missing):,} images are still missing: {format_indices(evaluation.missing)}")


def _certify(config: CertifyConfig, runner: Runner | None, *, as_json: bool) -> None:
    from dualrs.evaluation import evaluate
    from dualrs.models import bundle_digest, find_bundle
    from dualrs.smoothing import load

    folder = find_bundle(config.model)
    model = load(folder, **config.execution)
    dataset = open_data(config.data, model, config.split)
    evaluation = evaluate(
        model,
        dataset,
        indices=config.positions(len(dataset)),
        shard=config.part,
        seed=config.seed,
        folder=config.output,
        overwrite=config.overwrite,
        rules=config.rules,
        global_sigmas=config.global_sigmas,
        model_digest=bundle_digest(folder),
        info={"command": config.model_dump(mode="json")},
        runner=runner,
        **config.options,
    )
    _show(evaluation, as_json=as_json)
    if evaluation.complete:
        return
    kept = f"{evaluation.summary['inputs']:,} of {evaluation.summary['requested']:,} images are finished and saved"
    again = "run the same command again, without --overwrite," if config.overwrite else "run the same command again"
    failed = evaluation.failed
    if evaluation.missing - failed.keys():
        remarks.print(f"[yellow]Interrupted:[/] {kept}; {again} to go on where this one stopped.")
        raise typer.Exit(INTERRUPTED)
    idx, failure = min(failed.items())
    where = "" if evaluation.folder is None else f" ({evaluation.folder / 'failed.json'})"
    remarks.print(f"[red]Failed:[/] {len(failed):,} images were set aside{escape(where)}, the first, {idx}, for this:")
    remarks.print(failure.error, highlight=False, markup=False, soft_wrap=True)
    remarks.print(f"{kept}; {again} to try the others once more.")
    raise typer.Exit(FAILED)


def _show(evaluation: Evaluation, *, as_json: bool) -> None:
    from dualrs.evaluation import render

    if as_json:
        print(json.dumps(evaluation.summary))
        return
    out.print(render(evaluation.summary))
    if evaluation.folder is not None:
        out.print(f"results: {evaluation.folder}")
