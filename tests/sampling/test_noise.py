"""Noise depends on its key alone, and is what it claims to be: independent and standard normal."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import kstest, norm

from dualrs.sampling import NoiseKey, block_rows, input_digest, standard_normal_block

SHAPE = (3, 8, 8)
KEY = NoiseKey(seed=0, digest=input_digest(torch.zeros(SHAPE)), model="classifier", sigma=0.5)


def test_one_key_gives_one_block_whatever_happened_before():
    first = standard_normal_block(KEY, 3, SHAPE)
    torch.rand(7)
    np.random.default_rng().random(7)
    standard_normal_block(KEY, 4, SHAPE)
    assert torch.equal(first, standard_normal_block(replace(KEY), 3, SHAPE))
    assert first.dtype == torch.float32
    assert first.shape == (block_rows(SHAPE), *SHAPE)


def test_the_noise_of_a_key_never_changes():
    """Otherwise no recorded certificate could be reproduced."""
    block = standard_normal_block(NoiseKey(7, b"\x01\x02", "expert-0.25", 0.25), 5, (2, 2))
    expected = [-0.0350629, -1.5941936, -0.3654546, 0.0509361]
    assert block[0].flatten().tolist() == pytest.approx(expected, abs=1e-7)


@pytest.mark.parametrize(
    ("key", "block"),
    [
        (replace(KEY, seed=1), 0),
        (replace(KEY, seed=-1), 0),
        (replace(KEY, seed=2**70), 0),
        (replace(KEY, digest=input_digest(torch.ones(SHAPE))), 0),
        (replace(KEY, model="classifier2"), 0),
        (replace(KEY, model=""), 0),
        (replace(KEY, sigma=math.nextafter(0.5, 1)), 0),
        (KEY, 1),
        (KEY, 2**40),
    ],
)
def test_any_change_of_the_key_gives_unrelated_noise(key, block):
    reference, other = standard_normal_block(KEY, 0, SHAPE), standard_normal_block(key, block, SHAPE)
    assert (reference == other).float().mean() < 1e-3
    correlation = float((reference * other).mean()) * math.sqrt(reference.numel())
    assert abs(correlation) < 5


def test_fields_of_a_key_cannot_run_into_each_other():
    blocks = [
        standard_normal_block(NoiseKey(1, b"ab", "c", 1.0), 0, (4,)),
        standard_normal_block(NoiseKey(1, b"a", "bc", 1.0), 0, (4,)),
        standard_normal_block(NoiseKey(1, b"", "abc", 1.0), 0, (4,)),
        standard_normal_block(NoiseKey(11, b"", "abc", 1.0), 0, (4,)),
    ]
    assert len({tuple(block.flatten().tolist()) for block in blocks}) == len(blocks)


def test_moments_and_tails_are_standard_normal():
    values = torch.cat([standard_normal_block(KEY, block, SHAPE).flatten() for block in range(16)]).double().numpy()
    n = len(values)
    assert abs(values.mean()) < 5 / math.sqrt(n)
    assert abs(values.var() - 1) < 5 * math.sqrt(2 / n)
    assert abs((values**3).mean()) < 5 * math.sqrt(15 / n)
    assert abs((values**4).mean() - 3) < 5 * math.sqrt(96 / n)
    assert kstest(values[:200_000], "norm").pvalue > 1e-4
    for z in (2.0, 3.0, 4.0, 4.5):
        for found in ((values > z).sum(), (values < -z).sum()):
            expected = n * norm.sf(z)
            assert abs(found - expected) < 5 * math.sqrt(expected)


def test_rows_and_coordinates_are_uncorrelated():
    rows = torch.cat([standard_normal_block(KEY, block, (16,)) for block in range(4)]).double()
    n = len(rows)
    covariance = rows.T @ rows / n - torch.eye(16, dtype=torch.float64)
    assert float(covariance.abs().max()) < 6 / math.sqrt(n) * math.sqrt(2)
    assert abs(float((rows[1:] * rows[:-1]).mean())) < 5 / math.sqrt(16 * n)


@given(st.lists(st.integers(0, 600), max_size=4))
def test_blocks_have_a_power_of_two_rows_and_bounded_size(shape):
    rows = block_rows(shape)
    assert 1 <= rows <= 4096
    assert rows & (rows - 1) == 0
    assert rows == 1 or rows * math.prod(shape) <= 2**18


def test_block_rows_of_known_shapes():
    assert [block_rows(shape) for shape in ((), (1,), (64,), (3, 32, 32), (3, 224, 224), (2**20,))] == [
        4096,
        4096,
        4096,
        64,
        1,
        1,
    ]


def test_a_digest_tells_shapes_and_values_apart():
    x = torch.arange(12, dtype=torch.float32) / 7
    bumped = x.clone()
    bumped[5] = torch.nextafter(bumped[5], torch.tensor(1.0))
    digests = [input_digest(x), input_digest(x.view(3, 4)), input_digest(x.view(4, 3)), input_digest(bumped)]
    assert len(set(digests)) == 4


def test_equal_inputs_have_equal_digests_whatever_holds_them():
    x = torch.arange(12, dtype=torch.float32).view(3, 4) / 8
    same = [x.double(), x.half(), x.t().contiguous().t(), x.clone().requires_grad_(), torch.cat([x, x])[3:]]
    assert {input_digest(other) for other in same} == {input_digest(x)}
    assert input_digest(torch.tensor([0.0, 1.0])) == input_digest(torch.tensor([-0.0, 1.0]))
    assert input_digest(torch.tensor([0, 1])) == input_digest(torch.tensor([0.0, 1.0]))
