"""The models that come with the package."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from dualrs.models.manifest import MANIFEST, BundleError


def shipped_models() -> list[str]:
    """The names of the models in the package, by which `find_bundle` finds them."""
    folder = _folder()
    return sorted(path.name for path in folder.iterdir() if (path / MANIFEST).is_file()) if folder.is_dir() else []


def find_bundle(name: str | Path) -> Path:
    """The folder of a bundle, given its path or the name of a shipped model; a path goes first.

    Raises:
        BundleError: there is neither.
    """
    path = Path(name)
    if (path / MANIFEST).is_file():
        return path
    if str(name) in shipped_models():
        return _folder() / str(name)
    raise BundleError(
        f"{name} is neither a bundle (a folder with {MANIFEST}) nor a shipped model ({', '.join(shipped_models())})"
    )


def _folder() -> Path:
    return Path(str(files("dualrs"))) / "shipped"
