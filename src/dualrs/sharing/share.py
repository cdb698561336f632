"""A bundle with its card and curves, in a folder and on the Hub."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Unpack

from dualrs.evaluation import CURVES, plot_curves
from dualrs.models import (
    UploadOptions,
    bundle_card,
    bundle_digest,
    bundle_files,
    find_bundle,
    load_bundle,
    upload_bundle,
)
from dualrs.models.hub import CARD
from dualrs.models.manifest import MANIFEST
from dualrs.sharing.results import SharedRun, open_shared_run


def model_card(
    bundle: str | Path,
    *,
    run: str | Path | None = None,
    repo_id: str | None = None,
    revision: str = "main",
    license: str | None = None,  # noqa: A002
) -> str:
    """The card of a bundle, as Markdown: what it is, what a run measured, and how to verify that.

    Args:
        bundle: its folder, or the name of a shipped model.
        run: the folder of a finished run of this very model; the card then has its certified accuracies, shows the
            picture ``curves.png``, and its example reproduces one of the run's certificates.
        repo_id: where the bundle will be found.
        revision: by which the example loads it.
        license: of the weights, as the Hub abbreviates it ("mit"); none is claimed if None.

    Raises:
        BundleError: there is no such bundle.
        FileNotFoundError: there is no such run.
        ResultsError, RunError: it holds no run, or one that is damaged.
        ValueError: the run is not finished, or was made with another model.
    """
    folder = find_bundle(bundle)
    shared = None if run is None else open_shared_run(run, bundle_digest(folder))
    return _card(folder, shared, repo_id, revision, license)


def stage(
    bundle: str | Path,
    folder: str | Path,
    *,
    run: str | Path | None = None,
    repo_id: str | None = None,
    revision: str = "main",
    license: str | None = None,  # noqa: A002
) -> Path:
    """Writes what `share` would upload, to look at first: the bundle's own files, the card, and a run's curves.

    Every file of the bundle was checked against its digest; other files in its folder are left out.

    Args:
        bundle: its folder, or the name of a shipped model.
        folder: where to; must be absent or empty.
        run: see `model_card`.
        repo_id: see `model_card`.
        revision: see `model_card`.
        license: see `model_card`.

    Raises:
        FileExistsError: the folder is there and holds something.
        BundleError, FileNotFoundError, ResultsError, RunError, ValueError: see `model_card`.
    """
    source, target = find_bundle(bundle), Path(folder)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise FileExistsError(f"{target} is there already and not empty: choose another folder")
    load_bundle(source)  # refuses what is truncated or altered
    files = [MANIFEST, *bundle_files(source)]
    if clash := {CARD, CURVES} & set(files):
        raise ValueError(f"a part of {source} is called {', '.join(clash)}, as the card or its picture is: rename it")
    shared = None if run is None else open_shared_run(run, bundle_digest(source))
    card = _card(source, shared, repo_id, revision, license)
    target.mkdir(parents=True, exist_ok=True)
    for file in files:
        shutil.copyfile(source / file, target / file)
    (target / CARD).write_text(card, encoding="utf-8")
    if shared is not None:
        plot_curves(shared.evaluation.table, target / CURVES, title="Certified accuracy", subtitle=shared.subtitle)
    return target


def share(
    bundle: str | Path,
    repo_id: str,
    *,
    run: str | Path | None = None,
    license: str | None = None,  # noqa: A002
    **options: Unpack[UploadOptions],
) -> str:
    """Uploads a bundle to the Hub in one commit, with a card that says how to verify it; see `stage` for a dry run.

    Args:
        bundle: its folder, or the name of a shipped model.
        repo_id: "user/name"; made if there is none.
        run: see `model_card`.
        license: see `model_card`.
        **options: see `dualrs.models.UploadOptions`.

    Returns:
        The address of the commit, or of the pull request.

    Raises:
        OSError: the Hub does not answer, or does not take it.
        BundleError, FileNotFoundError, ResultsError, RunError, ValueError: see `model_card`.
    """
    with tempfile.TemporaryDirectory() as scratch:
        revision = options.get("branch") or "main"
        folder = stage(bundle, Path(scratch) / "bundle", run=run, repo_id=repo_id, revision=revision, license=license)
        return upload_bundle(folder, repo_id, also=(CARD,) if run is None else (CARD, CURVES), **options)


def _card(
    folder: Path,
    shared: SharedRun | None,
    repo_id: str | None,
    revision: str,
    license: str | None,  # noqa: A002
) -> str:
    if repo_id is not None:
        from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

        validate_repo_id(repo_id)
    results, check = ("", None) if shared is None else (shared.section(), shared.check())
    return bundle_card(folder, repo_id=repo_id, revision=revision, license=license, results=results, check=check)
