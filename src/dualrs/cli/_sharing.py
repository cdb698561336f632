"""The commands that pass a model on: share, export-onnx."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dualrs.cli._shared import out


def share(
    bundle: Annotated[str, typer.Argument(help="A bundle's folder, or the name of a shipped model.")],
    repo: Annotated[str, typer.Argument(help="The repository on the Hugging Face Hub: user/name.")],
    run: Annotated[
        Path | None, typer.Option(help="A finished run of this model; its figures go onto the model's card.")
    ] = None,
    license_: Annotated[
        str | None, typer.Option("--license", help="Of the weights, for the card, such as mit; none if absent.")
    ] = None,
    private: Annotated[
        bool | None,
        typer.Option("--private/--public", help="Of a repository that is made; as the Hub has it if absent."),
    ] = None,
    branch: Annotated[str | None, typer.Option(help="Where the commit goes; the main branch if absent.")] = None,
    pull_request: Annotated[
        bool, typer.Option("--pull-request", help="Open a pull request instead of committing.")
    ] = False,
    dry_run: Annotated[
        Path | None, typer.Option(help="Write what would be uploaded into this folder, and upload nothing.")
    ] = None,
) -> None:
    """Upload a bundle to the Hugging Face Hub, with a card that shows what a run measured and how to verify it.

    Only the bundle's own files go with it. The token is the one of `hf auth login`, or HF_TOKEN.

    Example: dualrs share fashion-mnist me/fashion-dualrs --run runs/quickstart --dry-run to-share
    """
    from dualrs import sharing

    if dry_run is not None:
        folder = sharing.stage(bundle, dry_run, run=run, repo_id=repo, revision=branch or "main", license=license_)
        out.print(f"would be uploaded to {repo}: {folder}", soft_wrap=True)
        return
    address = sharing.share(
        bundle,
        repo,
        run=run,
        license=license_,
        private=private,
        branch=branch,
        create_pr=pull_request or None,
    )
    out.print(f"uploaded: {address}", soft_wrap=True)


def export_onnx(
    bundle: Annotated[str, typer.Argument(help="A bundle's folder, or the name of a shipped model.")],
    folder: Annotated[Path, typer.Argument(help="Where to; an earlier export in it is replaced.")],
) -> None:
    """Write every network of a model as an ONNX file that takes batches of any size, checked in ONNX Runtime.

    The folder is a bundle too: dualrs loads it like any other, and its certificates are about the ONNX files.

    Example: dualrs export-onnx fashion-mnist fashion-onnx
    """
    from dualrs.adapters import export_onnx as export
    from dualrs.smoothing import load

    path = export(load(bundle), folder)
    for file in sorted(path.glob("*.onnx")):
        out.print(f"{file}: {file.stat().st_size:,} bytes", soft_wrap=True)
    out.print(f"bundle: {path}", soft_wrap=True)
