import polars as pl
import pytest
from polars.testing import assert_frame_equal

from dualrs.certificates import Certificate, Route
from dualrs.evaluation import (
    SCHEMA,
    ResultsError,
    certificate_of,
    global_names,
    oracle_rows,
    read_parquet,
    row_of,
    table_of,
    write_parquet,
)
from dualrs.sampling import Outcome
from dualrs.smoothing import Expert


def test_a_row_holds_the_outcome(by_hand):
    row = by_hand.filter(idx=7, method="dual").row(0, named=True)
    stages = row.pop("stages")
    assert row == {
        "idx": 7,
        "method": "dual",
        "label": 1,
        "predicted": 0,
        "abstained": False,
        "correct": False,
        "radius": 1.5,
        "sigma": 0.5,
        "expert": None,
        "estimator_radius": 1.5,
        "classifier_radius": 2.5,
        "samples": 2000,
        "seconds": 2.0,
        "alpha": 0.001,
        "rule": "min",
        "routes": None,
    }
    assert '"counts":[900,90]' in stages


def test_the_routes_of_a_certificate_are_kept():
    routes = (Route(0.5, 0.2, 0.75, "wide"), Route(0.5, 0.5, None, "deep"))
    certificate = Certificate(1, 0.5, 0.5, 0.001, "routed", (), routes=routes, expert="wide")
    (row,) = table_of([row_of(3, "dual", 1, Outcome(certificate, 1.0))]).iter_rows(named=True)
    assert certificate_of(row) == certificate


def test_a_table_from_before_experts_had_names_can_be_read(by_hand, tmp_path):
    path = tmp_path / "certificates.parquet"
    by_hand.drop("expert").write_parquet(path)
    assert_frame_equal(read_parquet(path), by_hand)  # which names none


def test_an_abstention_predicts_nothing_and_has_radius_zero(by_hand):
    row = by_hand.filter(idx=9, method="dual").row(0, named=True)
    assert row["abstained"]
    assert not row["correct"]
    assert (row["predicted"], row["sigma"], row["radius"], row["classifier_radius"]) == (None, None, 0.0, None)


def test_rows_are_ordered_by_input_whatever_finished_first(by_hand):
    backwards = [row for idx in (11, 9, 7, 5, 3) for row in by_hand.filter(idx=idx).iter_rows(named=True)]
    assert_frame_equal(table_of(backwards), by_hand)


def test_round_trip_rebuilds_every_certificate(by_hand, tmp_path):
    path = write_parquet(by_hand, tmp_path / "new" / "certificates.parquet")
    read = read_parquet(path)
    assert_frame_equal(read, by_hand)
    assert dict(read.schema) == dict(SCHEMA)
    for row in read.iter_rows(named=True):
        again = row_of(row["idx"], row["method"], row["label"], Outcome(certificate_of(row), row["seconds"]))
        assert again == row


def test_an_empty_table_makes_the_round_trip(tmp_path):
    read = read_parquet(write_parquet(table_of([]), tmp_path / "empty.parquet"))
    assert read.is_empty()
    assert dict(read.schema) == dict(SCHEMA)


def test_certificate_of_checks_what_it_reads(by_hand):
    row = by_hand.row(0, named=True)
    assert isinstance(certificate_of(row), Certificate)
    for damage in ({"stages": "[{"}, {"stages": '[{"name": "x"}]'}, {"alpha": 2.0}, {"radius": -1.0}):
        with pytest.raises(ValueError, match=r"input 3, method 'dual' holds no certificate"):
            certificate_of({**row, **damage})


def test_the_oracle_takes_the_largest_radius_that_gives_the_true_label(by_hand):
    oracle = oracle_rows(by_hand)
    columns = ["idx", "predicted", "abstained", "correct", "radius", "sigma"]
    assert oracle.select(columns).rows() == [
        (3, 1, False, True, 0.75, 0.25),
        (5, 1, False, True, 1.0, 0.5),
        (7, 1, False, True, 0.125, 0.25),  # not 2.5: that certificate gives a wrong label
        (9, None, True, False, 0.0, None),
        (11, 1, False, True, 0.5, 0.25),  # a tie: the smaller σ
    ]
    assert oracle.select("method", "label", "samples", "seconds", "alpha", "rule", "stages").unique().rows() == [
        ("oracle", 1, 2200, 1.5, 0.002, "oracle", "[]")
    ]
    assert dict(oracle.schema) == dict(SCHEMA)


def test_the_oracle_says_which_expert_it_took():
    pool = [Expert("a.onnx", 0.25, "low"), Expert("b.onnx", 0.5, "wide"), Expert("c.onnx", 0.5, "deep")]
    rows = [
        row_of(idx, method, label, Outcome(Certificate(1, radius, e.sigma, 0.001, "cohen", (), expert=e.name), 1.0))
        for idx, label, radii in (
            (0, 1, (0.5, 0.5, 0.75)),
            (1, 1, (0.5,) * 3),
            (2, 1, (0.25, 0.5, 0.5)),
            (3, 0, (1,) * 3),
        )
        for method, e, radius in zip(global_names(pool), pool, radii, strict=True)
    ]
    oracle = oracle_rows(table_of(rows))
    assert oracle["expert"].to_list() == ["deep", "low", "wide", None]
    assert oracle["sigma"].to_list() == [0.5, 0.25, 0.5, None]


def test_the_oracle_holds_no_certificate(by_hand):
    with pytest.raises(ValueError, match="oracle"):
        certificate_of(oracle_rows(by_hand).row(0, named=True))


def test_no_global_methods_no_oracle(by_hand):
    assert oracle_rows(by_hand.filter(method="dual")).is_empty()


@pytest.mark.parametrize("keep", [0, 4, 0.5, -1])
def test_truncated_files_are_refused(by_hand, tmp_path, keep):
    path = write_parquet(by_hand, tmp_path / "certificates.parquet")
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep) if isinstance(keep, float) else keep])
    with pytest.raises(ResultsError, match=r"certificates\.parquet .* is truncated or no Parquet file"):
        read_parquet(path)


def test_other_columns_are_named(by_hand, tmp_path):
    path = tmp_path / "other.parquet"
    by_hand.drop("radius").with_columns(pl.col("idx").cast(pl.Int32), extra=1).write_parquet(path)
    with pytest.raises(ResultsError, match="missing columns: radius; unknown columns: extra; idx is Int32, not Int64"):
        read_parquet(path)
    with pytest.raises(ResultsError, match="missing columns: radius"):
        write_parquet(by_hand.drop("radius"), tmp_path / "never.parquet")
    assert not (tmp_path / "never.parquet").exists()
    by_hand.select(reversed(by_hand.columns)).write_parquet(path)
    with pytest.raises(ResultsError, match="must come in the order idx, method"):
        read_parquet(path)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (pl.lit(None, pl.Float64()).alias("radius"), "a value is missing"),
        (pl.lit(float("nan")).alias("radius"), "a radius is not a finite number"),
        (pl.lit(-1.0).alias("radius"), "a radius is not a finite number"),
        (pl.lit(1.0).alias("radius"), "an abstention claims a radius"),
        (pl.lit(False).alias("abstained"), "`abstained` contradicts"),
        (pl.lit(True).alias("correct"), "`correct` contradicts"),
        (pl.lit(3, pl.Int64()).alias("idx"), "two rows have this input and method"),
    ],
)
def test_tables_that_contradict_themselves_are_refused(by_hand, tmp_path, damage, message):
    path = write_parquet(by_hand.with_columns(damage), tmp_path / "odd.parquet")
    with pytest.raises(ResultsError, match=rf"odd\.parquet: {message}.*method"):
        read_parquet(path)


def test_a_missing_file_is_missing(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_parquet(tmp_path / "none.parquet")
