"""One-shot diffusion denoising: the schedules, the arithmetic around the network, and networks of diffusers."""

import builtins
import json
import logging
import math
from dataclasses import asdict

import numpy as np
import pytest
import torch
from torch import nn

import dualrs
from dualrs.models import (
    GUIDED_DIFFUSION,
    IMPROVED_DIFFUSION,
    Chain,
    NoiseSchedule,
    OneShotDenoiser,
    Recipe,
    build_network,
    load_unet,
    new_unet,
    recipe_of,
)
from dualrs.sampling import make_backend

diffusers = pytest.importorskip("diffusers")

UNET = {
    "in_channels": 1,
    "out_channels": 1,
    "block_out_channels": [8, 16],
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "down_block_types": ["DownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "UpBlock2D"],
    "add_attention": False,
}
CLASSIFIER = Recipe("resnet9", {"num_classes": 3, "width": 4, "mean": [0.5], "std": [0.2]})


class Oracle(nn.Module):
    """A diffusion model that knows the clean image, and so finds the noise; with channels of variances behind it."""

    def __init__(self, clean, schedule):
        super().__init__()
        self.clean, self.left, self.seen = 2 * clean - 1, schedule.alphas_cumprod(), None

    def forward(self, x, timestep, *, return_dict):
        assert not return_dict
        self.seen = x, timestep
        left = self.left[timestep]
        noise = (x - math.sqrt(left) * self.clean) / math.sqrt(1 - left)
        return torch.cat([noise, torch.full_like(noise, 7.0)], dim=1), "more"


def unet(seed=0):
    torch.manual_seed(seed)
    return new_unet(UNET).eval()


@pytest.mark.parametrize(
    ("schedule", "timesteps"),
    [
        (IMPROVED_DIFFUSION, {0.125: 597, 0.25: 1158, 0.5: 1984, 0.75: 2490, 1.0: 2809}),
        (GUIDED_DIFFUSION, {0.25: 145, 0.5: 259, 1.0: 396}),
    ],
)
def test_timesteps_are_those_of_carlini_et_al(schedule, timesteps):
    assert {sigma: schedule.timestep(sigma) for sigma in timesteps} == timesteps
    for sigma, timestep in timesteps.items():
        assert schedule.ratio(timestep - 1) < 2 * sigma <= schedule.ratio(timestep)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"beta_schedule": "squaredcos_cap_v2", "num_train_timesteps": 4000},
        {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012},
        {"num_train_timesteps": 250, "beta_end": 0.08},
    ],
)
def test_schedules_are_those_of_diffusers(options):
    scheduler = diffusers.DDPMScheduler(**options)
    schedule = NoiseSchedule.from_scheduler(scheduler.config)
    np.testing.assert_allclose(schedule.alphas_cumprod(), scheduler.alphas_cumprod.numpy(), atol=2e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prediction_type": "v_prediction"}, "must predict the noise .* predicts 'v_prediction'"),
        ({"beta_schedule": "sigmoid"}, "'sigmoid'; known are linear, scaled_linear, squaredcos_cap_v2"),
        ({"rescale_betas_zero_snr": True}, "with rescale_betas_zero_snr"),
        ({"trained_betas": [0.1, 0.2]}, "with trained_betas"),
    ],
)
def test_schedulers_that_mean_something_else_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        NoiseSchedule.from_scheduler(diffusers.DDPMScheduler(**options).config)


@pytest.mark.parametrize(
    "arguments", [("sigmoid", 10), ("linear", 0), ("linear", 10, 0.0, 0.1), ("linear", 10, 0.2, 0.1)]
)
def test_impossible_schedules_are_refused(arguments):
    with pytest.raises(ValueError, match="schedule"):
        NoiseSchedule(*arguments)


@pytest.mark.parametrize("sigma", [0.0, -1.0, 100.0, float("nan")])
def test_noise_beyond_the_schedule_is_refused(sigma):
    with pytest.raises(ValueError, match="noise levels up to σ = 78"):
        OneShotDenoiser(unet(), GUIDED_DIFFUSION, sigma)


@pytest.mark.parametrize("schedule", [IMPROVED_DIFFUSION, GUIDED_DIFFUSION])
@pytest.mark.parametrize("sigma", [0.125, 0.25, 1.0])
def test_a_model_that_finds_the_noise_recovers_the_image(schedule, sigma):
    generator = torch.Generator().manual_seed(0)
    clean = torch.rand(2, 3, 8, 8, generator=generator)
    noisy = clean + sigma * torch.randn(clean.shape, generator=generator)
    oracle = Oracle(clean, schedule)
    torch.testing.assert_close(OneShotDenoiser(oracle, schedule, sigma)(noisy), clean, atol=1e-5, rtol=0)
    seen, timestep = oracle.seen
    assert timestep == schedule.timestep(sigma)
    # The network sees √ᾱ_t (2x - 1), the noise being in x already.
    expected = math.sqrt(schedule.alphas_cumprod()[timestep]) * (2 * noisy - 1)
    torch.testing.assert_close(seen, expected, atol=1e-5, rtol=0)


def test_the_result_is_an_image():
    denoised = OneShotDenoiser(unet(), GUIDED_DIFFUSION, 0.5)(5 * torch.randn(4, 1, 8, 8))
    assert denoised.shape == (4, 1, 8, 8)
    assert 0.0 <= denoised.min() < denoised.max() <= 1.0


def test_a_recipe_rebuilds_the_denoiser():
    denoiser = OneShotDenoiser(unet(), IMPROVED_DIFFUSION, 0.25).eval()
    recipe = recipe_of(denoiser)
    assert recipe.arguments["schedule"] == asdict(IMPROVED_DIFFUSION)
    assert recipe.arguments["unet"].items() >= UNET.items()
    rebuilt = build_network(Recipe(**json.loads(json.dumps(recipe.as_argument())))).eval()
    rebuilt.load_state_dict(denoiser.state_dict())
    images = torch.rand(2, 1, 8, 8)
    assert torch.equal(rebuilt(images), denoiser(images))
    assert recipe_of(rebuilt) == recipe
    assert recipe_of(OneShotDenoiser(Oracle(images, GUIDED_DIFFUSION), GUIDED_DIFFUSION, 0.25)) is None


def test_a_classifier_behind_diffusion_is_saved_and_exported(tmp_path):
    torch.manual_seed(0)
    classifier = build_network(CLASSIFIER)
    base = Chain(OneShotDenoiser(unet(), GUIDED_DIFFUSION, 0.5), classifier, size=(12, 12)).eval()
    folder = dualrs.SmoothedClassifier(base, 0.5, 3).save(tmp_path / "model")
    loaded, images = dualrs.load(folder).base, torch.rand(4, 1, 8, 8)
    assert torch.equal(loaded(images), base(images))
    backend = make_backend(loaded, input_shape=(1, 8, 8), batch_size=4, backend="onnx")
    torch.testing.assert_close(backend.logits(images), base(images), atol=1e-4, rtol=1e-3)


def test_models_of_diffusers_are_loaded_from_pipelines_and_plain_folders(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("diffusers"), "propagate", True)
    network, scheduler = unet(), diffusers.DDPMScheduler(num_train_timesteps=500)
    diffusers.DDPMPipeline(network, scheduler).save_pretrained(tmp_path / "pipeline")
    network.save_pretrained(tmp_path / "plain")
    scheduler.save_pretrained(tmp_path / "plain")
    images = torch.rand(2, 1, 8, 8)
    for folder in (tmp_path / "pipeline", tmp_path / "plain"):
        loaded, schedule = load_unet(folder)
        assert schedule == NoiseSchedule("linear", 500)
        assert not loaded.training
        assert torch.equal(
            OneShotDenoiser(loaded, schedule, 0.5)(images), OneShotDenoiser(network, schedule, 0.5)(images)
        )
    assert not caplog.messages  # above all no advertisement for other packages


def test_pickled_weights_are_not_loaded(tmp_path):
    unet().save_pretrained(tmp_path, safe_serialization=False)
    diffusers.DDPMScheduler().save_pretrained(tmp_path)
    with pytest.raises(OSError, match="safetensors"):
        load_unet(tmp_path)


def test_without_diffusers_the_error_names_the_extra(monkeypatch):
    plain_import = builtins.__import__

    def no_diffusers(name, *args, **kwargs):
        if name == "diffusers":
            raise ImportError(name)
        return plain_import(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", no_diffusers)
    with pytest.raises(ImportError, match=r"pip install 'dualrs\[diffusion\]'"):
        new_unet(UNET)
