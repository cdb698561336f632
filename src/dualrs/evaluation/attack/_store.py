"""An audit in its folder: on disk within seconds, and continued by whoever comes later, as a run is."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import polars as pl

from dualrs.evaluation.attack._attempts import ATTEMPTS
from dualrs.evaluation.keeping import Keeping
from dualrs.evaluation.manifest import Manifest
from dualrs.evaluation.store import Store
from dualrs.evaluation.table import ResultsError, parse_any_parquet
from dualrs.files import write_json
from dualrs.sampling import Failed

SUMMARY = "attack.json"


def _parse(content: bytes, what: str) -> pl.DataFrame:
    table = parse_any_parquet(content, what)
    if table.schema != ATTEMPTS:
        raise ResultsError(f"{what} holds no attempts of an audit: its columns are others")
    return table


AUDIT = Keeping("attack-run.json", "attack-parts", "attack.parquet", "attack-failed.json", (SUMMARY,), _parse)


@dataclass(frozen=True)
class Audit:
    """What an audit found.

    Attributes:
        table: one row per attempt, see `ATTEMPTS`.
        summary: the content of ``attack.json``: what `summarize_attempts` gives, with ``method``, ``complete``,
            ``requested`` (inputs asked for), ``remarks`` and ``metadata``: settings, and what it ran on.
        complete: False if inputs are missing; those that are finished are here.
        failed: the inputs that were set aside just now, by `idx`, with what they failed by.
    """

    table: pl.DataFrame
    summary: dict[str, Any]
    complete: bool
    failed: Mapping[int, Failed] = field(default_factory=dict)

    @property
    def wrong(self) -> bool:
        """Whether there are more broken inputs than bad luck explains."""
        return bool(self.summary["wrong"])


class AuditStore(Store[Audit]):
    """The attempts of an audit.

    Args:
        judge: says what all attempts so far amount to.
        *arguments, **options: see `dualrs.evaluation.store.opened`.
    """

    keeping, noun = AUDIT, "an audit"

    def __init__(self, judge: Callable[[pl.DataFrame, Manifest], Audit], *arguments: Any, **options: Any) -> None:
        self._judge = judge
        super().__init__(*arguments, **options)

    def _table(self, rows: Iterable[Mapping[str, Any]]) -> pl.DataFrame:
        return pl.DataFrame(list(rows), schema=ATTEMPTS, orient="row")

    def _read(self, folder: Path, manifest: Manifest) -> tuple[pl.DataFrame, list[Path]]:
        tables, broken = AUDIT.read(folder, manifest)
        # After a kill what was written out may be in the parts still; an input's attempts are in one table each time.
        numbered = [table.with_columns(table=pl.lit(number)) for number, table in enumerate([self._table([]), *tables])]
        first = pl.col("table") == pl.col("table").min().over("idx")
        return pl.concat(numbered).filter(first).drop("table"), broken

    def _sum_up(self, rows: pl.DataFrame, manifest: Manifest, folder: Path | None) -> Audit:
        return replace(self._judge(rows.sort("idx", maintain_order=True), manifest), failed=self.failed)

    def _write_out(self, found: Audit, manifest: Manifest, folder: Path) -> None:
        AUDIT.write_table(found.table, manifest, folder)
        write_json(folder / SUMMARY, found.summary)
        AUDIT.parts_of(folder).remove()
