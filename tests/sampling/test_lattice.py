"""Exact noise: its thresholds, its tables, its distribution, and what it refuses."""

from itertools import pairwise

import mpmath
import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from dualrs.certificates import certify
from dualrs.sampling import Engine, Job, NoiseKey
from dualrs.sampling.lattice import LatticeNoise, LatticeTable, clip_margin, lattice_table, thresholds
from dualrs.sampling.noise import uniform_block

CASES = [(0.12, 255), (0.25, 255), (1.0, 255), (0.3, 1), (2.0, 15), (1e-4, 255), (0.5, 1023)]
TOP = 2**64 - 1


@pytest.mark.parametrize(("sigma", "levels"), CASES)
def test_thresholds_are_the_floors_of_the_normal_distribution_function(sigma, levels):
    table = LatticeTable(sigma, levels)
    largest = clip_margin(sigma, levels) + levels
    assert len(table.thresholds) == 2 * largest
    assert (np.diff(table.thresholds.astype(object)) >= 0).all()
    with mpmath.workdps(60):
        for i in {*range(-largest, largest, 1 + largest // 100), -1, 0, largest - 1}:
            distance = abs(mpmath.mpf(i) + 0.5) / (mpmath.mpf(sigma) * levels)
            lower = int(mpmath.floor(2**64 * mpmath.ncdf(-distance)))
            assert int(table.thresholds[i + largest]) == (lower if i < 0 else TOP - lower)


def test_probabilities_add_up_to_one_and_are_those_of_the_rounded_gaussian():
    sigma, levels = 0.25, 255
    table = lattice_table(sigma, levels)
    largest = len(table.thresholds) // 2
    edges = [-1, *map(int, table.thresholds), TOP]
    weights = [high - low for low, high in pairwise(edges)]
    assert sum(weights) == 2**64
    assert min(weights) >= 0
    with mpmath.workdps(60):
        for j in (-largest + 1, -200, -1, 0, 1, 63, 300, largest - 1):
            low, high = ((mpmath.mpf(j) + d) / (mpmath.mpf(sigma) * levels) for d in (-0.5, 0.5))
            expected = 2**64 * (mpmath.ncdf(high) - mpmath.ncdf(low))
            # At most one of the integers for each side is the ambiguous one.
            assert abs(weights[j + largest] - expected) <= 1


def plain(table, uniforms):
    below = np.searchsorted(table.thresholds, uniforms)
    return below - len(table.thresholds) // 2, np.isin(uniforms, table.thresholds)


@pytest.mark.parametrize(("sigma", "levels"), CASES)
def test_the_fast_search_is_the_plain_one(sigma, levels):
    table = LatticeTable(sigma, levels)
    exact = table.thresholds
    cells = np.arange(2**16, dtype=np.uint64) << np.uint64(48)
    random = np.random.default_rng(0).integers(0, TOP, 100_000, dtype=np.uint64, endpoint=True)
    near = np.concatenate([exact, exact[exact < TOP] + np.uint64(1), exact[exact > 0] - np.uint64(1)])
    extreme = np.array([0, 1, TOP - 1, TOP, 2**63 - 1, 2**63], dtype=np.uint64)
    for uniforms in (random, near, extreme, cells, cells - np.uint64(1), random >> np.uint64(30), ~(random >> 30)):
        steps, ambiguous = table.steps(uniforms)
        expected_steps, expected_ambiguous = plain(table, uniforms)
        np.testing.assert_array_equal(steps, expected_steps)
        np.testing.assert_array_equal(ambiguous, expected_ambiguous)
    assert table.steps(exact)[1].all()


@pytest.mark.parametrize("generator", ["sfc64", "shake256"])
@pytest.mark.parametrize(("sigma", "levels"), [(0.12, 255), (0.5, 15), (1.0, 2)])
def test_draws_have_the_distribution_of_the_table(generator, sigma, levels):
    source = LatticeNoise(generator, levels)
    key = NoiseKey(0, b"", "m", sigma)
    draws = np.concatenate([source.draw(key, block, (64,)).values.ravel() for block in range(4)]).astype(int)
    table = lattice_table(sigma, levels)
    largest = len(table.thresholds) // 2
    shares = np.diff(np.concatenate([[0.0], table.thresholds.astype(float), [2.0**64]])) / 2.0**64
    found = np.bincount(draws + largest, minlength=2 * largest + 1)
    expected = len(draws) * shares
    common = expected >= 10
    found, expected = (
        np.append(found[common], found[~common].sum()),
        np.append(expected[common], sum(expected[~common])),
    )
    assert chisquare(found, expected * found.sum() / expected.sum()).pvalue > 1e-4


def test_noisy_copies_are_clipped_multiples_of_the_step():
    sigma, source = 0.5, LatticeNoise()
    margin = clip_margin(sigma, 255)
    x = torch.tensor([0, 51, 255]) / 255
    noise = np.array([[0, 0, 0], [-1000, 1, 1020], [-766, 204, 766], [1020, -52, -1020]], dtype=np.int16)
    out = np.empty((4, 3), dtype=np.float32)
    source.write(noise, source.check(x), sigma, out)
    sums = np.array([[0, 51, 255], [-765, 52, 1020], [-765, 255, 1020], [1020, -1, -765]], dtype=np.float32)
    assert margin == 765
    np.testing.assert_array_equal(out, sums / np.float32(255))


def test_a_draw_on_a_threshold_marks_its_row(monkeypatch):
    key = NoiseKey(0, b"", "m", 1.0)
    uniforms = uniform_block(key, 0, 4096 * 4, "sfc64").copy()
    uniforms[4 * 17 + 2] = lattice_table(1.0, 255).thresholds[1800]
    uniforms[4 * 4095] = lattice_table(1.0, 255).thresholds[0]
    monkeypatch.setattr("dualrs.sampling.lattice.uniform_block", lambda *arguments: uniforms)
    assert LatticeNoise().draw(key, 0, (4,)).ambiguous == (17, 4095)


@pytest.mark.parametrize(
    "x",
    [
        torch.arange(256) / 255,
        torch.arange(256, dtype=torch.float32) * (1 / 255),
        (torch.arange(256, dtype=torch.float64) / 255).float(),
    ],
)
def test_grid_points_are_recognised_however_they_were_rounded(x):
    assert LatticeNoise().check(x).tolist() == list(range(256))


def test_other_grids_may_be_declared():
    assert LatticeNoise(levels=4).check(torch.tensor([[0.25, 1.0]])).tolist() == [[1, 4]]
    assert LatticeNoise(levels=65535).check(torch.arange(65536) / 65535).tolist() == list(range(65536))


def test_inputs_off_the_grid_are_refused_with_the_worst_value():
    x = torch.tensor([[0.2, 0.1], [0.5, 1.0]])
    with pytest.raises(
        ValueError,
        match=r"multiples of 1/255; the input's value 0\.\d+ at \((0, 1|1, 0)\) is 0\.00196 away.*"
        r"Quantise the input first: \(x \* 255\)\.round\(\) / 255",
    ):
        LatticeNoise().check(x)
    with pytest.raises(ValueError, match=r"multiples of 1/255"):
        LatticeNoise().check(torch.tensor([0.2 + 1e-6]))
    LatticeNoise().check((x * 255).round() / 255)


@pytest.mark.parametrize("values", [[0.0, -1 / 255], [2.0, 1.0], [float("nan"), 0.0], [float("inf"), 0.0]])
def test_inputs_outside_of_the_grid_are_refused(values):
    engine = Engine(lambda name, shape: None, noise=LatticeNoise())
    with pytest.raises(ValueError, match=r"values lie in \[.*\]; exact noise takes values in \[0, 1\]"):
        list(engine.run([Job(0, torch.tensor(values), {"a": certify(0.5)})]))


@pytest.mark.parametrize("levels", [0, -255, 255.0])
def test_impossible_grids_are_refused(levels):
    with pytest.raises(ValueError, match="levels must be an integer of at least 1"):
        LatticeNoise(levels=levels)


def test_tables_too_large_to_compute_are_refused():
    with pytest.raises(ValueError, match=r"σ = 1 on multiples of 1/65535 needs \d+ thresholds.*use fewer levels"):
        LatticeTable(1.0, 65535)
    assert len(thresholds(1.0, 255, 3)) == 6
