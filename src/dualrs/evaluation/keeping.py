"""How rows are kept in a folder: in parts while they come, in one table in the end, under a manifest all the while."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import polars as pl

from dualrs.evaluation.manifest import Manifest, RunError, read_manifest
from dualrs.evaluation.parts import Parts
from dualrs.evaluation.table import parquet_bytes
from dualrs.files import atomic_write


@dataclass(frozen=True)
class Keeping:
    """The files of a run, or of something else that is kept as a run is, by their names in its folder.

    Attributes:
        manifest: the file that says what the rows were made with.
        parts: the folder of what is finished, while there is more to come.
        table: the file of all rows, once they are written out.
        failed: the file that says why inputs were set aside.
        made: the files that are made of the rows; the first is written last, and the others may be absent.
        parse: reads rows from the content of a file, which is named in errors.
    """

    manifest: str
    parts: str
    table: str
    failed: str
    made: tuple[str, ...]
    parse: Callable[[bytes, str], pl.DataFrame]

    def parts_of(self, folder: Path, key: bytes = b"") -> Parts:
        """Gives the parts in a folder; without the key of their manifest they can only be removed."""
        return Parts(folder / self.parts, key, self.parse)

    def read(self, folder: Path, manifest: Manifest) -> tuple[list[pl.DataFrame], list[Path]]:
        """Gives the rows that were written out, then those of each part, and the parts that are broken.

        Raises:
            ResultsError, RunError: the table that was written out is damaged or was altered.
        """
        tables, broken = self.parts_of(folder, manifest.key).read()
        # The parts first: whoever finishes the run meanwhile writes the table before removing the parts.
        return [*self._written_out(folder, manifest), *tables], broken

    def write_table(self, table: pl.DataFrame, manifest: Manifest, folder: Path) -> None:
        """Writes all rows out, so that the parts may go; a kill at any moment loses nothing."""
        path, content = folder / self.table, parquet_bytes(table)
        known = (_digest(path.read_bytes()),) if path.exists() else ()
        # Announced first: until the file is replaced, and after it, the one that is there is known to be good.
        replace(manifest, certificates=(*known, _digest(content))).write(folder / self.manifest)
        with atomic_write(path) as file:
            file.write(content)

    def refuse(self, folder: Path) -> None:
        """Raises FileExistsError if a folder holds results."""
        named = (folder / name for name in (self.table, self.manifest))
        held = [path for path in (*named, *self.parts_of(folder).files()) if path.exists()]
        if held:
            raise FileExistsError(
                f"{folder} holds results already ({held[0].name}): choose another folder, or overwrite"
            )

    def remove(self, folder: Path) -> None:
        """Removes the results that a folder holds."""
        for name in (*self.made, self.failed, self.table):
            (folder / name).unlink(missing_ok=True)
        self.parts_of(folder).remove()
        (folder / self.manifest).unlink(missing_ok=True)

    def is_settled(self, folder: Path) -> bool:
        """Whether all is written out as it is; not so if it was killed while that was done."""
        return (folder / self.made[0]).exists() and self.parts_of(folder).removed

    def _written_out(self, folder: Path, manifest: Manifest) -> list[pl.DataFrame]:
        path = folder / self.table
        if not path.exists():
            return []
        content = path.read_bytes()
        # Whoever finishes the run meanwhile has announced the file after the manifest was read.
        if _digest(content) not in (*manifest.certificates, *read_manifest(folder / self.manifest).certificates):
            raise RunError(
                f"{path} ({len(content):,} bytes) is not as the run wrote it: it was damaged or altered. Nothing was "
                "changed; restore the file, or overwrite the run"
            )
        return [self.parse(content, str(path))]


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
