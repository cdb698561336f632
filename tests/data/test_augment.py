import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from dualrs.data import random_crop_flip


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def windows(image, padding, flip):
    """Every outcome that the augmentation may have for one image, by plain slicing."""
    _, height, width = image.shape
    padded = F.pad(image, (padding,) * 4)
    cuts = [padded[:, y : y + height, x : x + width] for y in range(2 * padding + 1) for x in range(2 * padding + 1)]
    return cuts + [cut.flip(-1) for cut in cuts] if flip else cuts


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 2), st.booleans(), st.integers(0, 1000), st.sampled_from([(1, 4, 3), (3, 2, 5)]))
def test_each_image_is_one_of_its_windows(padding, flip, seed, shape):
    images = torch.rand(6, *shape, generator=seeded(seed)) + 1
    for image, result in zip(
        images, random_crop_flip(images, padding=padding, flip=flip, generator=seeded(seed)), strict=True
    ):
        assert any(torch.equal(result, window) for window in windows(image, padding, flip))


def test_every_window_occurs_about_equally_often():
    image = torch.rand(1, 3, 3, generator=seeded()) + 1
    outcomes = torch.stack(windows(image, 1, True))
    batch = image.expand(3600, -1, -1, -1)
    results = random_crop_flip(batch, padding=1, flip=True, generator=seeded())
    hits = (results[:, None] == outcomes).flatten(2).all(-1)
    assert (hits.sum(1) == 1).all()
    counts = hits.sum(0)
    assert counts.min() > 130
    assert counts.max() < 270


def test_the_generator_decides():
    images = torch.rand(32, 3, 8, 8)
    first, again, other = (random_crop_flip(images, padding=2, flip=True, generator=seeded(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_nothing_to_do_gives_an_equal_copy():
    images = torch.randint(0, 256, (4, 1, 5, 6), dtype=torch.uint8)
    result = random_crop_flip(images, padding=0, flip=False, generator=seeded())
    assert torch.equal(result, images)
    assert result.dtype == images.dtype
    assert result.data_ptr() != images.data_ptr()


def test_channels_last_batches_and_empty_ones_are_taken():
    images = torch.rand(4, 3, 6, 6)
    last = images.to(memory_format=torch.channels_last)
    options = {"padding": 2, "flip": True}
    assert torch.equal(
        random_crop_flip(last, **options, generator=seeded()),
        random_crop_flip(images, **options, generator=seeded()),
    )
    assert random_crop_flip(images[:0], **options, generator=seeded()).shape == (0, 3, 6, 6)


def test_bad_arguments():
    with pytest.raises(ValueError, match=r"\(N, C, H, W\)"):
        random_crop_flip(torch.zeros(3, 8, 8), padding=1, flip=True, generator=seeded())
    with pytest.raises(ValueError, match="-1"):
        random_crop_flip(torch.zeros(1, 3, 8, 8), padding=-1, flip=True, generator=seeded())
