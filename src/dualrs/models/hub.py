"""Bundles on the Hugging Face Hub: fetched by what ``model.json`` names, and nothing else.

A repository is somebody else's: what it holds is not trusted. `download_bundle` reads ``model.json`` first, refuses one
that does not describe a bundle, and then fetches the files that it names, all of one commit. Other files of the
repository are never touched, and nothing is unpickled or run.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TypedDict, Unpack

from dualrs.models.manifest import MANIFEST, BundleError, bundle_digest, bundle_files

CARD = "README.md"
"""What the Hub shows of a repository: the model's card."""


class UploadOptions(TypedDict, total=False):
    """How something is put onto the Hub; the names are those of huggingface_hub.

    Attributes:
        token: of the Hub; None takes the one that is logged in.
        private: whether a repository that is made is private; None leaves it to the Hub.
        branch: where the commit goes, made if absent; the main branch if None.
        create_pr: open a pull request instead of committing to the branch.
        commit_message: says what is uploaded, if None.
    """

    token: str | bool | None
    private: bool | None
    branch: str | None
    create_pr: bool | None
    commit_message: str | None


def download_bundle(
    repo_id: str,
    *,
    revision: str | None = None,
    token: str | bool | None = None,
    digest: str | None = None,
    cache_dir: str | Path | None = None,
    force_download: bool = False,
    local_files_only: bool = False,
) -> Path:
    """Fetches a bundle from the Hub into its cache, and gives the folder; `load_bundle` checks the files on reading.

    Args:
        repo_id: "user/name".
        revision: a branch, a tag or a commit; the main branch if None. Only a commit cannot be moved.
        token: of the Hub; True takes the one that is logged in, False none.
        digest: the SHA-256 that ``model.json`` must have (`bundle_digest`). It covers every file, whoever serves them.
        cache_dir: another cache than huggingface_hub's.
        force_download: fetch what is in the cache again.
        local_files_only: take everything from the cache.

    Raises:
        BundleError: the repository has no bundle, or not all of its files, or ``model.json`` has another digest.
        ValueError: the name is none that a repository can have, or the digest no SHA-256.
        OSError: the Hub does not answer, has no such repository or revision, or does not give it to us.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    if digest is not None and not re.fullmatch(r"[0-9a-f]{64}", digest):
        raise ValueError(f"a digest is a SHA-256 in 64 lower-case hexadecimal digits; got {digest!r}")

    def fetch(file: str, at: str | None) -> Path:
        try:
            return Path(
                hf_hub_download(
                    repo_id,
                    file,
                    revision=at,
                    token=token,
                    cache_dir=cache_dir,
                    force_download=force_download,
                    local_files_only=local_files_only,
                    library_name="dualrs",
                )
            )
        except LocalEntryNotFoundError:  # offline, and not in the cache: no fault of the repository
            raise
        except EntryNotFoundError as error:
            named = "so it holds no bundle" if file == MANIFEST else f"which its {MANIFEST} names"
            raise BundleError(f"{repo_id} at {at or 'main'} has no file {file}, {named}") from error

    folder = fetch(MANIFEST, revision).parent
    check_digest(folder, digest, f"{repo_id} at {revision or 'main'}")
    for file in bundle_files(folder):
        fetch(file, folder.name)  # the cache names the folder by the commit: whatever moves meanwhile, this does not
    return folder


def upload_bundle(
    folder: str | Path,
    repo_id: str,
    *,
    also: tuple[str, ...] = (CARD,),
    **options: Unpack[UploadOptions],
) -> str:
    """Uploads a bundle in one commit: ``model.json``, the files that it names, and what is asked for beside them.

    Args:
        folder: of the bundle.
        repo_id: "user/name"; made if there is none.
        also: further files of the folder.
        **options: see `UploadOptions`.

    Returns:
        The address of the commit, or of the pull request.

    Raises:
        BundleError: the folder holds no bundle.
        OSError: the Hub does not answer, or does not take it.
    """
    from huggingface_hub import HfApi

    files = [MANIFEST, *bundle_files(folder), *also]
    branch, create_pr = options.get("branch"), options.get("create_pr")
    api = HfApi(token=options.get("token"), library_name="dualrs")
    repo = api.create_repo(repo_id, private=options.get("private"), exist_ok=True).repo_id
    if branch is not None and not create_pr:
        api.create_branch(repo, branch=branch, exist_ok=True)
    commit = api.upload_folder(
        repo_id=repo,
        folder_path=str(folder),
        allow_patterns=files,  # plain names, so each pattern matches one file
        commit_message=options.get("commit_message") or "Upload a dualrs bundle",
        revision=branch,
        create_pr=create_pr,
    )
    return str(commit.pr_url or commit.commit_url)


def check_digest(folder: Path, digest: str | None, what: str | None = None) -> None:
    """Raises BundleError unless ``model.json`` of a bundle has the digest that was asked for, if one was."""
    if digest is not None and (found := bundle_digest(folder)) != digest:
        raise BundleError(
            f"{what or folder} is another model: the SHA-256 of its {MANIFEST} is {found}; asked for was {digest}"
        )
