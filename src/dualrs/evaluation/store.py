"""Something under way: finished inputs go to disk within seconds, and whoever comes later goes on from there."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from threading import Event, Lock, Thread
from typing import Any, ClassVar, Generic, TypeVar

import polars as pl

from dualrs.evaluation.indices import Indices
from dualrs.evaluation.keeping import Keeping
from dualrs.evaluation.manifest import Manifest, RunError, read_manifest
from dualrs.evaluation.runs import RUN, Evaluation, evaluation_of, read_rows, write_run
from dualrs.evaluation.table import table_of
from dualrs.files import exclusive, remove_leftovers, write_json
from dualrs.progress import remark
from dualrs.sampling import Failed

FLUSH_SECONDS = 5.0
"""How long finished inputs may be in memory only: what a kill can lose."""


T = TypeVar("T")


class Store(ABC, Generic[T]):
    """The rows of finished inputs, kept in a folder or, without one, in memory; made by `opened`.

    What `finish` makes of them is of type T. The keys of the manifest decide which rows are kept and which are refused.

    Attributes:
        keeping: the names of its files.
        noun: what its folder holds, for messages.
        manifest: of what is under way, with all inputs that it was ever asked for.
        done: the inputs that are finished, by `idx`.
        failed: the inputs that were set aside in this session, by `idx`; a later one tries them again.
    """

    keeping: ClassVar[Keeping]
    noun: ClassVar[str]

    def __init__(
        self,
        folder: Path | None,
        manifest: Manifest,
        session: Callable[[], Mapping[str, Any]],
        *,
        overwrite: bool,
    ) -> None:
        self.manifest = manifest
        self._folder, self._session = folder, session
        self._pending: list[Sequence[Mapping[str, Any]]] = []  # of each input that is not on disk: its rows
        self._tables: list[pl.DataFrame] = []  # of a store without a folder; others read what they have written
        self._is_new, self._warned = True, False
        self.failed: dict[int, Failed] = {}
        self._failures_written = 0
        self._writing, self._started = Lock(), time.perf_counter()
        self.done = Indices()
        if folder and not overwrite:
            self._take_up(folder)
        self._found = len(self.done)

    def add(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Takes up the rows of one finished input."""
        self._pending.append(rows)
        self.done.add(rows[0]["idx"])

    def fail(self, idx: int, failure: Failed) -> None:
        """Sets an input aside."""
        self.failed[idx] = failure

    def flush(self) -> OSError | None:
        """Writes what is not on disk yet; what cannot be written stays in memory, and the error is returned."""
        with self._writing:
            finished = list(self._pending)
            table = self._table(row for rows in finished for row in rows)
            try:
                if self._folder:
                    if finished:
                        self._write(table, self._folder)
                    self._write_failures(self._folder)
            except OSError as error:
                if not self._warned:
                    remark(f"{_cannot_write(self._folder, error)}: inputs stay in memory until it can be done")
                self._warned = True
                return error
            if not self._folder:
                self._tables.append(table)
            del self._pending[: len(finished)]
            return None

    def finish(self) -> T:
        """Sums up what is finished, and writes it out unless that is nothing.

        Raises:
            RunError: it cannot be written; the message says what is safe.
        """
        if error := self.flush():
            raise self._unwritten(error) from error
        manifest, folder = self._manifest(), self._folder if self.done else None
        rows = self._read(folder, manifest)[0] if folder else pl.concat([self._table([]), *self._tables])
        found = self._sum_up(rows, manifest, folder)
        del rows  # which may be half of all memory
        if folder and (self._finished or not self.keeping.is_settled(folder)):
            try:
                if not self.failed:
                    (folder / self.keeping.failed).unlink(missing_ok=True)
                self._write_out(found, manifest, folder)
            except OSError as error:
                raise self._unwritten(error) from error
        return found

    @abstractmethod
    def _table(self, rows: Iterable[Mapping[str, Any]]) -> pl.DataFrame:
        """Makes a table of rows."""

    @abstractmethod
    def _read(self, folder: Path, manifest: Manifest) -> tuple[pl.DataFrame, list[Path]]:
        """Gives the rows that a folder holds, and the parts that are broken."""

    @abstractmethod
    def _sum_up(self, rows: pl.DataFrame, manifest: Manifest, folder: Path | None) -> T:
        """Makes of all rows what they are for."""

    @abstractmethod
    def _write_out(self, found: T, manifest: Manifest, folder: Path) -> None:
        """Writes that to the folder, in which it then takes the place of the parts."""

    @property
    def _finished(self) -> int:
        """How many inputs this session has finished."""
        return len(self.done) - self._found

    def _take_up(self, folder: Path) -> None:
        """Goes on with what is in the folder, if there is anything."""
        if not (folder / self.keeping.manifest).exists():
            self.keeping.refuse(folder)
            return
        found = read_manifest(folder / self.keeping.manifest)
        if changes := found.changes(self.manifest):
            raise RunError(
                f"{folder} holds {self.noun} that was made with other settings ({changes}): restore them, choose "
                "another folder, or overwrite"
            )
        rows, broken = self._read(folder, found)
        self.keeping.parts_of(folder, found.key).set_aside(broken)
        self.done, self._is_new = Indices(rows["idx"]), False
        requested, whole = found.requested | self.manifest.requested, found.whole | self.manifest.whole
        self.manifest = replace(found, requested=requested, whole=whole)

    def _write(self, table: pl.DataFrame, folder: Path) -> None:
        if self._is_new:
            self.keeping.remove(folder)  # only now that there is something in their place
            self._is_new = False
        manifest = self._manifest()
        manifest.write(folder / self.keeping.manifest)  # first: without it a part would be of no run
        self.keeping.parts_of(folder, manifest.key).append(table, len(self.done))

    def _write_failures(self, folder: Path) -> None:
        if len(self.failed) > self._failures_written and not self._is_new:
            failed = dict(self.failed)
            about = {idx: {"error": each.error, "traceback": each.traceback} for idx, each in sorted(failed.items())}
            write_json(folder / self.keeping.failed, about)
            self._failures_written = len(failed)

    def _manifest(self) -> Manifest:
        """The manifest as of now, with this session if it finished anything, or is all there is."""
        if self.manifest.sessions and not self._finished:
            return self.manifest
        session = {
            **self._session(),
            "wall_seconds": time.perf_counter() - self._started,
            "inputs": self._finished,
        }
        return replace(self.manifest, sessions=(*self.manifest.sessions, session))

    def _unwritten(self, error: OSError) -> RunError:
        lost = len(self._pending)
        return RunError(
            f"{_cannot_write(self._folder, error)}: {len(self.done) - lost} finished inputs are safe there"
            f"{f', {lost} are lost' if lost else ''}. Make room and run the same command again: it goes on from there"
        )


class RunStore(Store[Evaluation]):
    """The certificates of a run."""

    keeping, noun = RUN, "a run"

    def _table(self, rows: Iterable[Mapping[str, Any]]) -> pl.DataFrame:
        return table_of(rows)

    def _read(self, folder: Path, manifest: Manifest) -> tuple[pl.DataFrame, list[Path]]:
        return read_rows(folder, manifest)

    def _sum_up(self, rows: pl.DataFrame, manifest: Manifest, folder: Path | None) -> Evaluation:
        return evaluation_of(manifest, rows, folder, failed=self.failed)

    def _write_out(self, found: Evaluation, manifest: Manifest, folder: Path) -> None:
        write_run(found, manifest, folder)


def open_store(
    folder: Path | None,
    manifest: Manifest,
    session: Callable[[], Mapping[str, Any]],
    *,
    overwrite: bool = False,
) -> AbstractContextManager[RunStore]:
    """Opens the store of a run, as `opened` does."""
    return opened(RunStore, folder, manifest, session, overwrite=overwrite)


AnyStore = TypeVar("AnyStore", bound=Store[Any])


@contextmanager
def opened(
    make: Callable[..., AnyStore],
    folder: Path | None,
    manifest: Manifest,
    session: Callable[[], Mapping[str, Any]],
    *,
    overwrite: bool = False,
) -> Iterator[AnyStore]:
    """Opens a store; what is added to it is on disk within `FLUSH_SECONDS`.

    If the folder holds what was made with the same, the store goes on with it, and is asked for its inputs too.

    Args:
        make: the class of the store.
        folder: made if absent; None keeps everything in memory.
        manifest: of what is under way, as it is wanted now.
        session: gives what is known of the present session by now, as JSON values.
        overwrite: begin anew. What is there is replaced as soon as something is finished.

    Raises:
        BlockingIOError: another process writes to the folder.
        FileExistsError: it holds results, of which it is not known what they were made with.
        ResultsError, RunError: it holds something that was made with other settings, or is damaged.
    """
    if folder is None:
        yield make(None, manifest, session, overwrite=overwrite)
        return
    with exclusive(folder):
        remove_leftovers(folder)
        store, closed = make(folder, manifest, session, overwrite=overwrite), Event()
        thread = Thread(target=_flush_regularly, args=(store, closed), name="flush", daemon=True)
        thread.start()
        try:
            yield store
        finally:
            closed.set()
            thread.join()
            store.flush()  # whatever ended the run


def _flush_regularly(store: Store[Any], closed: Event) -> None:
    while not closed.wait(FLUSH_SECONDS):
        store.flush()


def _cannot_write(folder: Path | None, error: OSError) -> str:
    return f"cannot write to {folder} ({error.strerror or error})"
