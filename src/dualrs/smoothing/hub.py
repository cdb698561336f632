"""Smoothed classifiers in folders and on the Hugging Face Hub, by the method names that users of the Hub know."""

from __future__ import annotations

import tempfile
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Self, Unpack

from dualrs.models import (
    BundleError,
    UploadOptions,
    bundle_card,
    download_bundle,
    find_bundle,
    shipped_models,
    upload_bundle,
)
from dualrs.models.hub import CARD, check_digest
from dualrs.smoothing.options import Execution


class HubMethods(ABC):
    """What lets a smoothed classifier be loaded from the Hub and pushed to it, as a bundle.

    The names and arguments are those of huggingface_hub's ``ModelHubMixin``. Its code is not used: it passes whatever a
    repository's ``config.json`` says to the constructor, and a repository is not trusted here.
    """

    @classmethod
    def from_pretrained(
        cls,
        repo_or_folder: str | Path,
        *,
        revision: str | None = None,
        token: str | bool | None = None,
        digest: str | None = None,
        cache_dir: str | Path | None = None,
        force_download: bool = False,
        local_files_only: bool = False,
        **execution: Unpack[Execution],
    ) -> Self:
        """Loads a bundle from a folder or from the Hub; executes no code from it, and refuses altered files.

        Of a repository only ``model.json`` and the files that it names are fetched, all of one commit.

        Args:
            repo_or_folder: a bundle's folder, the name of a shipped model, or a repository ("user/name").
            revision: of the repository: a branch, a tag or a commit. Only a commit cannot be moved.
            token: of the Hub; None and True take the one that is logged in, False none.
            digest: the SHA-256 that ``model.json`` must have (`dualrs.models.bundle_digest`): with it the model is the
                very one, whoever serves it.
            cache_dir: another cache than huggingface_hub's.
            force_download: fetch what is in the cache again.
            local_files_only: take everything from the cache.
            **execution: how it runs, see `dualrs.smoothing.Execution`.

        Raises:
            BundleError: there is no bundle, a file is missing, truncated or altered, or it is another model.
            TypeError: the bundle holds a smoothed classifier of the other kind.
            ValueError: an impossible argument, such as a revision of a folder.
            OSError: the Hub does not answer, has no such repository or revision, or does not give it to us.
        """
        from dualrs.smoothing.loading import load

        where = str(repo_or_folder)
        if Path(where).is_dir() or where in shipped_models():
            if revision is not None:
                raise ValueError(f"{where} is a folder, which has no revisions: leave revision={revision!r} away")
            folder = find_bundle(where)
            check_digest(folder, digest)
        elif isinstance(repo_or_folder, Path):
            raise BundleError(f"there is no folder {where}")
        else:
            folder = download_bundle(
                where,
                revision=revision,
                token=token,
                digest=digest,
                cache_dir=cache_dir,
                force_download=force_download,
                local_files_only=local_files_only,
            )
        model = load(folder, **execution)
        if not isinstance(model, cls):
            raise TypeError(f"{where} holds a {type(model).__name__}: load it by that class's from_pretrained")
        return model

    def save_pretrained(
        self,
        folder: str | Path,
        *,
        half: bool = False,
        license: str | None = None,  # noqa: A002
    ) -> Path:
        """Writes a bundle, and a model card (``README.md``) into it; replaces the folder if it is a bundle already.

        Args:
            folder: where to.
            half: store weights as float16. What is certified must then be the loaded model.
            license: of the weights, for the card; none is claimed if None.

        Raises:
            TypeError: a base classifier is neither a registered network nor an ``.onnx`` file.
            ValueError: the number of classes is not known yet, or a weight does not fit into float16.
            FileExistsError: the folder exists and is no bundle.
        """
        path = self.save(folder, half=half)
        (path / CARD).write_text(bundle_card(path, license=license), encoding="utf-8")
        return path

    def push_to_hub(
        self,
        repo_id: str,
        *,
        half: bool = False,
        license: str | None = None,  # noqa: A002
        **options: Unpack[UploadOptions],
    ) -> str:
        """Uploads a bundle with a model card to the Hub in one commit; the repository is made if there is none.

        A card that shows what a run measured is written by `dualrs.sharing.share`.

        Args:
            repo_id: "user/name".
            half: store weights as float16. What is certified must then be the loaded model.
            license: of the weights, for the card; none is claimed if None.
            **options: see `dualrs.models.UploadOptions`.

        Returns:
            The address of the commit, or of the pull request.

        Raises:
            TypeError: a base classifier is neither a registered network nor an ``.onnx`` file.
            ValueError: the number of classes is not known yet, or a weight does not fit into float16.
            OSError: the Hub does not answer, or does not take it.
        """
        with tempfile.TemporaryDirectory() as scratch:
            folder = self.save(Path(scratch) / "bundle", half=half)
            revision = options.get("branch") or "main"
            card = bundle_card(folder, repo_id=repo_id, revision=revision, license=license)
            (folder / CARD).write_text(card, encoding="utf-8")
            return upload_bundle(folder, repo_id, **options)

    @abstractmethod
    def save(self, folder: str | Path, *, half: bool = False) -> Path:
        """Writes a bundle that `dualrs.load` reads; see `dualrs.models.save_bundle`."""
