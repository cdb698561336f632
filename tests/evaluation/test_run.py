import json

import numpy as np
import polars as pl
import pytest
import torch
from PIL import Image
from polars.testing import assert_frame_equal

import dualrs
from dualrs.data import ArrayDataset, load_folder
from dualrs.evaluation import certificate_of, choice_loss, choice_slack, evaluate, procedures, read_parquet
from dualrs.models import InputSpec
from dualrs.sampling import FloatNoise
from dualrs.smoothing import SmoothedClassifier

BUDGET = {"n0": 32, "n": 500, "alpha": 0.01}
VOTES = BUDGET["n0"] + BUDGET["n"]
METHODS = ["dual", "global-0.25", "global-0.5", "oracle"]


def stopping(world, calls, error):
    """The world's model with small batches, whose estimator raises after `calls` of them."""
    return world.model(estimator=StopsAfter(world.model().estimator, calls, error), batch_size=32)


class StopsAfter:
    """A base classifier that raises once it has answered `calls` batches."""

    def __init__(self, function, calls, error):
        self.function, self.calls, self.error = function, calls, error

    def __call__(self, batch):
        self.calls -= 1
        if self.calls < 0:
            raise self.error
        return self.function(batch)


def test_one_pass_gives_what_certify_gives_alone(world, tmp_path):
    model = world.model()
    found = evaluate(model, world.dataset, indices=[7, 0, 4], seed=5, folder=tmp_path / "run", **BUDGET)
    assert found.complete
    assert found.table["idx"].to_list() == [40] * 4 + [70] * 4 + [110] * 4  # the published positions, in order
    assert found.table["method"].to_list() == METHODS * 3
    for position, idx in ((7, 40), (0, 110), (4, 70)):
        x = world.dataset.image(position)
        row = found.table.filter(idx=idx, method="dual").row(0, named=True)
        assert certificate_of(row) == model.certify(x, seed=5, **BUDGET)
        assert row["label"] == world.dataset.label(position)


def test_batch_size_order_and_company_change_nothing(world):
    found = evaluate(world.model(), world.dataset, **BUDGET).table
    columns = pl.exclude("seconds")
    other = evaluate(world.model(batch_size=7), world.dataset, indices=range(11, -1, -1), **BUDGET).table
    assert_frame_equal(found.select(columns), other.select(columns))
    alone = evaluate(world.model(), world.dataset, global_sigmas=False, **BUDGET).table
    assert_frame_equal(found.filter(method="dual").select(columns), alone.select(columns))


def test_radii_stay_below_the_true_ones_and_wrong_labels_earn_nothing(world):
    found = evaluate(world.model(), world.dataset, rules=["routed", "min"], **BUDGET)
    for position in range(12):
        rows = found.table.filter(idx=int(world.dataset.indices[position]))
        to_label, to_sigma = world.true_radius(position)
        assert rows["radius"].max() <= to_label
        assert rows.filter(method="dual-min")["radius"].item() <= to_sigma
        assert not (position == 4 and rows["correct"].any())
    assert 0.3 < found.summary["certified_accuracy"]["oracle"]["0.00"] < 1


def test_methods_share_their_votes(world):
    found = evaluate(world.model(), world.dataset, rules=["min"], **BUDGET)
    engine = found.summary["metadata"]["engine"]
    for sigma in (0.25, 0.5):
        assert found.summary["samples_per_input"][f"global-{sigma:g}"] == VOTES
        # The expert voted once for each input, although the dual method used a part of its votes too.
        assert engine[f"expert-{sigma:g}"]["votes"] <= 12 * VOTES
    charged = found.table.filter(pl.col("method") != "oracle")["samples"].sum()
    evaluated = sum(model["votes"] for model in engine.values())
    shared = found.table.filter(pl.col("method") == "dual", pl.col("sigma").is_not_null())
    assert len(shared) > 0
    assert charged - evaluated == len(shared) * VOTES


def test_files_and_metadata(world, tmp_path):
    rules = ["routed", "min"]
    about = {"model_digest": "abc", "info": {"note": "x"}}
    found = evaluate(world.model(), world.dataset, seed=3, folder=tmp_path, rules=rules, **about, **BUDGET)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "certificates.parquet",
        "curves.png",
        "run.json",
        "summary.json",
    ]
    assert found.folder == tmp_path
    assert_frame_equal(read_parquet(tmp_path / "certificates.parquet"), found.table)
    with Image.open(tmp_path / "curves.png") as image:
        image.verify()
    summary = json.loads((tmp_path / "summary.json").read_text(encoding="utf-8"))
    assert summary == found.summary
    assert (summary["complete"], summary["requested"], summary["inputs"]) == (True, 12, 12)
    assert list(summary["certified_accuracy"]) == ["dual", "dual-min", *METHODS[1:]]

    about = summary["metadata"]
    certification = about["certification"]
    assert {name: certification[name] for name in ("n0", "n", "alpha", "seed", "noise", "dtype")} == {
        **BUDGET,
        "seed": 3,
        "noise": FloatNoise().name,
        "dtype": "float32",
    }
    assert certification["methods"]["dual"]["rule"] == "routed"
    assert certification["methods"]["dual"]["alpha_split"]["estimator/estimation"] == pytest.approx(0.0075)
    assert certification["methods"]["dual-min"] == {
        "rule": "min",
        "alpha": 0.01,
        "alpha_split": {"estimator/estimation": 0.005, "classifier/estimation": 0.005},
    }
    assert certification["methods"]["global-0.5"]["alpha_split"] == {"estimation": 0.01}
    bases = dict.fromkeys(["estimator", "expert-0.25", "expert-0.5"])  # callables have no digest
    assert about["model"] == {"digest": "abc", "num_classes": 2, "bases": bases, "sigmas": [0.25, 0.5], "sigma_e": 0.5}
    assert about["data"] == {"name": "toy", "split": "test", "size": 12, "digest": world.dataset.digest}
    assert about["info"] == {"note": "x"}
    assert about["software"]["dualrs"] == dualrs.__version__
    assert {"python", "torch", "numpy", "scipy", "onnxruntime"} <= set(about["software"])
    assert about["wall_seconds"] > 0
    estimator = about["engine"]["estimator"]
    assert (estimator["backend"], estimator["device"], estimator["batch_size"]) == ("callable", "cpu", 256)
    assert estimator["votes"] >= 12 * BUDGET["n0"]
    assert 0 < estimator["fill_rate"] <= 1
    assert estimator["votes_per_second"] > 0


def test_an_interrupt_keeps_what_was_finished(world, tmp_path):
    whole = evaluate(world.model(), world.dataset, rules=["min"], **BUDGET)
    model = stopping(world, 100, KeyboardInterrupt())
    found = evaluate(model, world.dataset, folder=tmp_path, rules=["min"], **BUDGET)
    assert not found.complete
    read = read_parquet(tmp_path / "certificates.parquet")
    finished = read["idx"].n_unique()
    assert 0 < finished < 12
    without_time = pl.exclude("seconds")
    expected = whole.table.filter(pl.col("idx").is_in(read["idx"].implode()))
    assert_frame_equal(read.select(without_time), expected.select(without_time))
    summary = json.loads((tmp_path / "summary.json").read_text(encoding="utf-8"))
    assert (summary["complete"], summary["inputs"], summary["requested"]) == (False, finished, 12)
    assert not (tmp_path / "curves.png").exists()


def test_an_interrupt_before_anything_is_finished_writes_nothing(world, tmp_path):
    model = stopping(world, 0, KeyboardInterrupt())
    found = evaluate(model, world.dataset, folder=tmp_path, rules=["min"], **BUDGET)
    assert (found.complete, found.folder, found.summary["inputs"]) == (False, None, 0)
    assert not list(tmp_path.iterdir())


def test_an_error_keeps_what_was_finished_and_passes_through(world, tmp_path):
    model = stopping(world, 100, RuntimeError("out of memory"))
    with pytest.raises(RuntimeError, match="out of memory") as error:
        evaluate(model, world.dataset, folder=tmp_path, rules=["min"], **BUDGET)
    finished = read_parquet(tmp_path / "certificates.parquet")["idx"].n_unique()
    assert error.value.__notes__ == [f"The {finished} inputs that were finished before this error are in {tmp_path}."]


def test_a_pool_is_compared_expert_by_expert(world, tmp_path):
    model = world.pool()
    found = evaluate(model, world.dataset, folder=tmp_path, rules=["routed", "min"], **BUDGET)
    experts = {
        "global-0.25": (0.25, "expert-0.25"),
        "global-0.5 (deep)": (0.5, "deep"),
        "global-0.5 (callable)": (0.5, "callable"),
    }
    assert list(found.summary["certified_accuracy"]) == ["dual", "dual-min", *experts, "oracle"]
    for method, (sigma, name) in experts.items():
        rows = found.table.filter(method=method)
        assert rows.select("sigma", "expert").unique().rows() == [(sigma, name)]
    for row in found.table.filter(pl.col("method").is_in(["dual", "dual-min"])).iter_rows(named=True):
        x = world.dataset.image(world.dataset.indices.tolist().index(row["idx"]))
        assert certificate_of(row) == model.certify(x, rule=row["rule"], **BUDGET)
    assert_frame_equal(read_parquet(tmp_path / "certificates.parquet"), found.table)
    assert found.summary["metadata"]["model"]["names"] == ["expert-0.25", "deep", "callable"]

    estimator = found.summary["estimator"]
    assert list(estimator["sigma_shares"]) == ["0.25", "0.5"]
    assert list(estimator["expert_shares"]) == ["expert-0.25", "callable", "deep"]
    assert all(share > 0 for share in estimator["expert_shares"].values())
    assert sum(estimator["expert_shares"].values()) + estimator["abstained"] == pytest.approx(1)
    oracle = found.summary["certified_accuracy"]["oracle"]
    assert all(oracle[r] >= shares[r] for shares in found.summary["certified_accuracy"].values() for r in oracle)

    loss, slack, dual = choice_loss(found.table), choice_slack(found.table), found.table.filter(method="dual")
    assert (loss >= 0).all()
    assert loss.max() > 0
    assert (slack < 0).tolist() == (dual["radius"] < dual["classifier_radius"]).to_list()
    assert 0 < (slack < 0).sum() < len(slack) == 12


def test_a_model_with_one_sigma_has_one_method(world):
    model = SmoothedClassifier(world.model().experts[0].base, 0.25, 2)
    found = evaluate(model, world.dataset, **BUDGET)
    assert found.table["method"].unique().to_list() == ["global-0.25"]
    assert found.summary["estimator"] is None
    assert found.summary["metadata"]["model"]["sigma_e"] is None
    row = found.table.filter(idx=110).row(0, named=True)
    assert certificate_of(row) == model.certify(world.dataset.image(0), **BUDGET)


def test_a_folder_of_images_is_evaluated_by_position(tmp_path):
    for name, level in (("dark", 30), ("light", 220)):
        (tmp_path / name).mkdir()
        Image.new("RGB", (4, 4), (level,) * 3).save(tmp_path / name / "a.png")
    brightness = SmoothedClassifier(lambda x: torch.stack([0.5 - x.mean((1, 2, 3)), x.mean((1, 2, 3)) - 0.5], 1), 0.5)
    found = evaluate(brightness, load_folder(tmp_path), **BUDGET)
    assert found.table.select("idx", "label", "predicted").rows() == [(0, 0, 0), (1, 1, 1)]
    assert found.summary["metadata"]["data"]["split"] is None


def test_every_image_is_checked(world):
    model = world.model()
    model.input = InputSpec((1, 2, 2))
    with pytest.raises(ValueError, match=r"image 3 of toy: the input has shape \(1, 1, 2\)"):
        evaluate(model, world.dataset, indices=[3], **BUDGET)


def test_impossible_requests_are_refused_before_any_work(world, tmp_path):
    run = tmp_path / "run"
    broken = world.model(estimator=StopsAfter(None, 0, AssertionError("work was done")))
    for indices, error, message in (
        ([], ValueError, "nothing to certify"),
        ([12], IndexError, r"\[0, 12\); got 12"),
        ([-1], IndexError, "got -1"),
        ([3, 3], ValueError, "asked for twice"),
        ([0.5], TypeError, "integer"),
    ):
        with pytest.raises(error, match=message):
            evaluate(broken, world.dataset, indices=indices, folder=run, **BUDGET)
    with pytest.raises(ValueError, match="use n >="):
        evaluate(broken, world.dataset, n=5, folder=run)
    assert not run.exists()


def test_procedures_are_fresh_each_time(world):
    made = procedures(world.model(), **BUDGET)
    assert list(made) == ["dual", "global-0.25", "global-0.5"]
    assert [next(make()).model for make in made.values()] == ["estimator", "expert-0.25", "expert-0.5"]
    assert made["dual"]() is not made["dual"]()
    assert list(procedures(world.model(), **BUDGET, global_sigmas=False)) == ["dual"]


def picky(world, refused):
    """The world's model, whose estimator raises on noisy copies of inputs whose second value is among these."""
    estimator = world.model().estimator

    def logits(batch):
        if any(abs(batch[:, 0, 0, 1].mean() - value) < 0.2 for value in refused):
            raise ValueError("this I cannot classify")
        return estimator(batch)

    return world.model(estimator=logits, batch_size=32)


def test_an_input_that_cannot_be_read_is_set_aside(world, tmp_path):
    whole = evaluate(world.model(), world.dataset, **BUDGET)

    class Damaged(type(world.dataset)):
        def image(self, i):
            if i == 3:
                raise OSError("image 3 is damaged")
            return super().image(i)

    fields = {
        name: getattr(world.dataset, name) for name in ("name", "split", "images", "labels", "classes", "indices")
    }
    found = evaluate(world.model(), Damaged(**fields), folder=tmp_path / "run", **BUDGET)
    idx = int(world.dataset.indices[3])
    assert not found.complete
    assert found.missing == found.failed.keys() == {idx}
    assert_frame_equal(found.table.drop("seconds"), whole.table.filter(pl.col("idx") != idx).drop("seconds"))
    kept = json.loads((tmp_path / "run" / "failed.json").read_text())
    assert kept[str(idx)]["error"] == "image 3 is damaged"
    assert "in image" in kept[str(idx)]["traceback"]
    # The same command tries it again.
    again = evaluate(world.model(), world.dataset, folder=tmp_path / "run", **BUDGET)
    assert again.complete
    assert not (tmp_path / "run" / "failed.json").exists()
    assert_frame_equal(again.table.drop("seconds"), whole.table.drop("seconds"))


def test_an_input_on_which_the_model_raises_is_set_aside_and_the_others_go_on(world, tmp_path):
    images = np.full((6, 1, 2, 1), 200, dtype=np.uint8)
    images[:, 0, 0, 0] += np.arange(6, dtype=np.uint8)
    images[2, 0, 1, 0] = 0
    dataset = ArrayDataset("toy", "test", images, np.ones(6, dtype=np.int64), ("low", "high"))
    budget = {"n0": 32, "n": 640, "alpha": 0.01}
    found = evaluate(picky(world, [0.0]), dataset, folder=tmp_path, **budget)
    assert found.failed.keys() == {2}
    assert found.failed[2].error == "ValueError: this I cannot classify"
    assert set(found.table["idx"]) == {0, 1, 3, 4, 5}


def test_failures_in_a_row_are_the_models_fault(world, tmp_path):
    with pytest.raises(RuntimeError, match="5 inputs failed in a row, the last by ValueError: this I cannot classify"):
        evaluate(picky(world, [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]), world.dataset, folder=tmp_path, **BUDGET)
