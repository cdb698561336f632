import base64
import io

import numpy as np
import polars as pl
import pytest
from PIL import Image

from dualrs.data import open_dataset
from dualrs.evaluation.pages._inputs import UNIT, inputs_of, listed_inputs
from dualrs.evaluation.pages._thumbnails import NoPicturesError, class_names, thumbnails_of


def test_columns(recorded):
    content = inputs_of([recorded], [3, 7, 9])
    assert content["idx"] == [3, 7, 9]
    assert content["label"] == [1, 1, 1]
    assert content["answers"] == ["σ = 0.25", "σ = 0.5"]
    dual, one, *_, oracle = content["series"]
    assert dual == {
        "title": "dual",
        "predicted": [1, 0, None],
        "radius": [2500, 15000, 0],
        "answer": [0, 1, None],
        "samples": [2000, 2000, 1000],
        "choice": [2500, 15000, None],
        "classifier": [7500, 25000, None],
        "limited": [1, 1, None],
    }
    assert one["choice"] is one["classifier"] is one["limited"] is None
    assert (oracle["predicted"], oracle["radius"]) == ([1, 1, None], [7500, 1250, 0])


def test_the_radius_of_the_choice_is_that_of_the_other_routes(recorded, run_of):
    chosen = '{"sigma":0.5,"exclusion_radius":0.0,"agreement_radius":1.0,"expert":"expert-0.5"}'
    other = '{"sigma":0.25,"exclusion_radius":1.5,"agreement_radius":2.0,"expert":"expert-0.25"}'
    routed = recorded.table.with_columns(routes=pl.when(idx=5, method="dual").then(pl.lit(f"[{chosen},{other}]")))
    routed = routed.with_columns(expert=pl.lit("expert-0.5"))
    dual = inputs_of([run_of("routed", routed)], [5])["series"][0]
    assert (dual["classifier"], dual["choice"], dual["limited"]) == ([10000], [20000], [0])


def test_radii_are_never_rounded_up(recorded, run_of):
    finer = run_of("finer", recorded.table.with_columns(pl.col("radius") * 0.99999))
    for one in inputs_of([finer], [3, 5, 7])["series"]:
        method = {"dual": "dual", "oracle σ (knows the label)": "oracle"}.get(
            one["title"], f"global-{one['title'][4:-8]}"
        )
        exact = finer.table.filter(pl.col("idx").is_in([3, 5, 7]), method=method)["radius"]
        assert (np.array(one["radius"]) / UNIT <= exact.to_numpy()).all()


def test_several_runs_stand_side_by_side(recorded, run_of):
    other = run_of("other", recorded.table.filter(method="global-0.5"))
    content = inputs_of([recorded, other], [3])
    assert [one["title"] for one in content["series"]][-2:] == [
        "by-hand: oracle σ (knows the label)",
        "other: σ = 0.5 for all",
    ]


def test_experts_are_named_where_a_sigma_has_several(table, run_of):
    names = {"global-0.25": "global-0.5 (wide)", "global-0.5": "global-0.5 (deep)"}
    pool = table.with_columns(pl.col("method").replace(names), expert=pl.lit("deep"))
    assert inputs_of([run_of("pool", pool)], [5])["answers"] == ["σ = 0.5 (deep)", "σ = 0.25 (deep)"]


def test_a_list_of_too_many_is_evenly_spaced(recorded, run_of):
    assert listed_inputs([recorded]) == [3, 5, 7, 9, 11]
    rows = recorded.table.filter(idx=3)
    large = pl.concat([rows.with_columns(pl.col("idx") + i) for i in range(0, 40_000, 2)])
    listed = listed_inputs([run_of("large", large)])
    assert len(listed) == 10_000  # of 20,000, with four methods
    assert set(np.diff(listed)) == {4}


def test_thumbnails_are_the_images(recorded):
    found = thumbnails_of(recorded, [3, 5, 7, 9, 11])
    assert (found.side, found.count, len(found.sheets)) == (28, 5, 1)
    content = base64.b64decode(found.sheets[0].removeprefix("data:image/webp;base64,"))
    sheet = np.asarray(Image.open(io.BytesIO(content)).convert("L"), dtype=float)
    assert sheet.shape == (found.rows * 28, found.columns * 28)
    data = open_dataset("fashion-mnist-sample")
    positions = data.indices.tolist()
    for number, idx in enumerate([3, 5, 7, 9, 11]):
        exact = data.images[positions.index(idx)][..., 0]
        assert np.abs(sheet[:28, 28 * number : 28 * number + 28] - exact).mean() < 8  # WebP is not exact
    assert class_names(recorded)[:2] == ("t-shirt/top", "trouser")


@pytest.mark.parametrize(
    ("data", "idx", "why"),
    [
        ({}, [3], "No record says which data set"),
        ({"name": "fashion-mnist-sample", "split": "test", "digest": "00" * 32}, [3], "another, by its digest"),
        ({"name": "folder:nowhere", "split": None, "digest": "00" * 32}, [3], "could not be opened"),
        ({"name": "unheard-of", "split": "test", "digest": "00" * 32}, [3], "could not be opened"),
        (None, [3, 123_456], "does not have all of these inputs"),
    ],
)
def test_why_there_are_no_pictures(recorded, metadata, data, idx, why, run_of):
    record = metadata() if data is None else metadata(data=data)
    with pytest.raises(NoPicturesError, match=why):
        thumbnails_of(run_of("run", recorded.table, **record), idx)


def test_large_images_of_a_folder_are_reduced(recorded, metadata, tmp_path, run_of):
    (tmp_path / "cats").mkdir()
    Image.new("RGB", (200, 100), "#00ff00").save(tmp_path / "cats" / "one.png")
    folder = open_dataset(f"folder:{tmp_path}")
    record = metadata(
        data={"name": folder.name, "split": None, "digest": folder.digest, "image_size": None},
        info={"command": {"data": f"folder:{tmp_path}"}},
    )
    found = thumbnails_of(run_of("run", recorded.table, **record), [0])
    assert found.side == 64
    sheet = Image.open(io.BytesIO(base64.b64decode(found.sheets[0].partition(",")[2])))
    assert sheet.getpixel((32, 32))[1] > 240
    assert sheet.getpixel((32, 4)) == pytest.approx((128, 128, 128), abs=6)  # above a picture that is wider than high
