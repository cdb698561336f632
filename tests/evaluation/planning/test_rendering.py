import io
from dataclasses import replace

import pytest
from rich.console import Console

from dualrs.evaluation import forecast, render_forecast
from dualrs.evaluation.planning._rendering import _bytes, _rounded


def printed(plan, width):
    out = io.StringIO()
    Console(file=out, width=width, color_system=None).print(render_forecast(plan))
    return out.getvalue()


@pytest.fixture(scope="module")
def plan(world):
    return forecast(world.dual, world.dataset, sample=12, votes=250, indices=range(40), price=2.5, **world.options)


@pytest.mark.parametrize("width", [80, 120])
def test_it_fits(plan, width):
    shown = printed(plan, width)
    assert "…" not in shown
    assert max(map(len, shown.splitlines())) <= width
    flowing = " ".join(shown.split())
    assert "40 of 60 images of slabs, n = 2,000, α = 0.001: dual, global-0.12, global-0.25, global-0.5" in flowing
    assert "250 votes of each base classifier on 12 of the images" in flowing
    assert "devices like the one measured (cpu)" in flowing
    for text in ("votes/input", "device-hours", "cost", "mean radius", "r > 0.50", "as planned", "without σ = 0.25"):
        assert text in flowing
    assert "target 0.5: decides whether a radius exceeds 0.5, and proves no more." in flowing
    assert "all 60 of the data set would take" in flowing


def test_what_is_not_known_is_not_shown(world, plan):
    alone = forecast(world.single, world.dataset, sample=10, tolerance=0.1, target=0.3, **world.options)
    shown = " ".join(printed(alone, 100).split())
    assert "tolerance 0.1, target 0.3" in shown
    assert "of the data set would take" not in shown
    assert "A further σ" not in shown
    assert "cost 95 %" not in shown
    assert "GPU" not in shown
    on_gpu = replace(plan, memory=replace(plan.memory, device=3 * 2**30))
    assert "3 GiB on the GPU" in " ".join(printed(on_gpu, 100).split())


def test_a_busy_machine_is_told_on(plan):
    assert "seems to be busy" in printed(replace(plan, pace=(0.7, 1.4)), 120)
    assert "seems to be busy" not in printed(replace(plan, pace=(0.95, 1.05)), 120)


def test_figures_have_three_digits():
    assert [_rounded(x) for x in (0.0, 7.4, 123.4, 12_345, 1_234_567)] == ["0", "7", "123", "12,300", "1,230,000"]
    assert [_bytes(x) for x in (0, 1000, 1536, 3 * 2**20, 5 * 2**40)] == [
        "0 bytes", "1e+03 bytes", "1.5 KiB", "3 MiB", "5 TiB",
    ]  # fmt: skip
