import numpy as np
import pytest
import torch

from dualrs.training.batches import Batch, batches
from dualrs.training.config import Optimization
from dualrs.training.processes import ALONE, Team

IMAGES = torch.rand(11, 2, 3, 3, generator=torch.Generator().manual_seed(0))
ROWS = torch.tensor([7, 3, 9, 0, 1, 14, 2, 6, 5, 12, 4])
DRAWS = {
    "noise": (0, lambda batch: batch.normal()),
    "noise of copies": (1, lambda batch: batch.normal(4)),
    "numbers": (0, lambda batch: batch.uniform()),
    "numbers of copies": (1, lambda batch: batch.uniform(3)),
    "whole numbers": (0, lambda batch: batch.integers(5)),
    "columns": (0, lambda batch: batch.choices(torch.arange(1.0, 46.0).view(15, 3))),
}


def batch_of(part=None):
    """A batch, or a part of it."""
    generator = torch.Generator().manual_seed(1)
    if part is None:
        return Batch(IMAGES, ROWS, generator)
    return Batch(IMAGES[part], ROWS[part], generator, whole=ROWS, first=part.start)


@pytest.mark.parametrize(("dim", "draw"), DRAWS.values(), ids=DRAWS.keys())
@pytest.mark.parametrize("size", [2, 3, 11])
def test_what_is_drawn_for_an_image_does_not_depend_on_how_a_batch_is_shared(dim, draw, size):
    parts = [draw(batch_of(Team(rank, size).part(len(ROWS)))) for rank in range(size)]
    assert torch.equal(torch.cat(parts, dim), draw(batch_of()))


def test_draws_have_the_shapes_of_images_and_copies():
    batch = batch_of()
    assert batch.normal().shape == IMAGES.shape
    assert batch.normal(4).shape == (4, *IMAGES.shape)
    assert (batch.uniform().shape, batch.uniform(3).shape) == ((11,), (3, 11))


@pytest.mark.parametrize("size", [2, 3])
def test_batches_are_shared_out_in_order_and_augmented_alike(size):
    images = np.random.default_rng(0).integers(0, 256, (30, 6, 6, 3), dtype=np.uint8)
    rows, plan = np.arange(3, 30), Optimization(epochs=2, batch_size=13, crop_padding=2)

    def epoch(team):
        generator = torch.Generator().manual_seed(4)
        options = {"epoch": 1, "generator": generator, "place": torch.device("cpu"), "team": team}
        return list(batches(images, rows, plan, **options))

    whole, parts = epoch(ALONE), [epoch(Team(rank, size)) for rank in range(size)]
    assert [len(batch.rows) for batch in whole] == [13, 13, 1]
    for step, batch in enumerate(whole):
        shares = [part[step] for part in parts]
        assert sum(share.weight for share in shares) == pytest.approx(1)
        assert {share.size for share in shares} == {batch.size}
        assert {share.done for share in shares} == {batch.done}
        if step < 2:
            assert torch.equal(torch.cat([share.images for share in shares]), batch.images)
            assert torch.equal(torch.cat([share.rows for share in shares]), batch.rows)
            assert [share.weight for share in shares] == [len(share.rows) / 13 for share in shares]
        else:  # one image, which nobody can have a part of
            assert all(torch.equal(share.images, batch.images) and share.whole is None for share in shares)


def test_means_and_variances_of_a_batch_that_is_not_shared():
    batch = batch_of()
    assert torch.equal(batch.mean(IMAGES), IMAGES.mean(0))
    assert torch.equal(batch.variance(IMAGES), IMAGES.var())


@pytest.mark.gpu
def test_batches_are_copied_to_a_gpu_as_they_are():
    if not torch.cuda.is_available():
        pytest.skip("there is no CUDA device")
    images = np.random.default_rng(0).integers(0, 256, (300, 32, 32, 3), dtype=np.uint8)
    plan, found = Optimization(epochs=1, batch_size=128), []
    for place in (torch.device("cpu"), torch.device("cuda")):
        options = {"epoch": 0, "generator": torch.Generator().manual_seed(4), "place": place, "team": ALONE}
        found.append(list(batches(images, np.arange(300), plan, **options)))
    for here, there in zip(*found, strict=True):
        assert there.device.type == "cuda"
        assert torch.equal(there.images.cpu(), here.images)
