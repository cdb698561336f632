"""The parts of a run that is under way: files of finished rows, each written whole, and checked when it is read."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import polars as pl

from dualrs.evaluation.table import parquet_bytes
from dualrs.files import atomic_write, remove_leftovers
from dualrs.progress import remark

_BROKEN = ".broken"


class Parts:
    """The folder of a run's parts.

    The name of a part is a number and a digest of its content under the run's key. So whatever is truncated, altered or
    of another run is found out, also where a reader of Parquet would take it.

    Args:
        folder: theirs.
        key: of the run, see `Manifest.key`.
        parse: reads a table from the content of a file, which is named in errors.
    """

    def __init__(self, folder: Path, key: bytes, parse: Callable[[bytes, str], pl.DataFrame]) -> None:
        self._folder, self._key, self._parse = folder, key, parse

    def files(self) -> list[Path]:
        """Gives the files that are there, by number, whether they are good or not."""
        return sorted(self._folder.glob("*.parquet"))

    def read(self) -> tuple[list[pl.DataFrame], list[Path]]:
        """Gives the tables of all parts, by number, and the files that are damaged or of another run."""
        tables, broken = [], []
        for path in self.files():
            try:
                content = path.read_bytes()
            except FileNotFoundError:
                continue  # the run was finished just now, and its rows are among the certificates
            if path.stem.partition("-")[2] == self._digest(content):
                tables.append(self._parse(content, str(path)))
            else:
                broken.append(path)
        return tables, broken

    def append(self, table: pl.DataFrame, number: int) -> None:
        """Writes one more part."""
        content = parquet_bytes(table)
        with atomic_write(self._folder / f"{number:06d}-{self._digest(content)}.parquet") as file:
            file.write(content)

    def set_aside(self, broken: list[Path]) -> None:
        """Renames what is no part of the run, and says so."""
        for path in broken:
            aside = path.replace(path.with_name(path.name + _BROKEN))
            remark(f"{path} is damaged or of another run: it is kept as {aside.name}, and its inputs are done anew")

    def remove(self) -> None:
        """Removes all parts, and the folder unless something was set aside there."""
        remove_leftovers(self._folder)
        for path in self.files():
            path.unlink()
        if self._folder.exists() and not any(self._folder.iterdir()):
            self._folder.rmdir()

    @property
    def removed(self) -> bool:
        """Whether `remove` is done; it may have been killed anywhere."""
        left = list(self._folder.iterdir()) if self._folder.exists() else None
        return left is None or (bool(left) and all(path.suffix == _BROKEN for path in left))

    def _digest(self, content: bytes) -> str:
        return hashlib.blake2b(content, key=self._key, digest_size=8).hexdigest()
