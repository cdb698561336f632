"""Shared batch normalisation in a group of one process, where it must be what it is without a group.

What it is in a group of several is in test_processes.py.
"""

import copy

import pytest
import torch
from timm.layers import BatchNormAct2d, ScaledStdConv2d
from torch import nn

from dualrs.training.statistics import SharedBatchNorm, total

BACKENDS = {"cpu": "gloo", "cuda": "nccl"}
LAYERS = {
    "1d": (nn.BatchNorm1d(3), (8, 3)),
    "1d of a sequence": (nn.BatchNorm1d(3), (8, 3, 5)),
    "2d": (nn.BatchNorm2d(3), (8, 3, 5, 4)),
    "2d, cumulative": (nn.BatchNorm2d(3, momentum=None), (8, 3, 5, 4)),
    "2d without weights": (nn.BatchNorm2d(3, affine=False), (8, 3, 5, 4)),
    "3d": (nn.BatchNorm3d(3), (8, 3, 2, 5, 4)),
    "timm's, with its activation": (BatchNormAct2d(3), (8, 3, 5, 4)),
    "of weights": (ScaledStdConv2d(3, 6, 3), (8, 3, 5, 4)),
}


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request):
    """A device, with a group of this process alone on it."""
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("there is no CUDA device")
    store = torch.distributed.HashStore()
    torch.distributed.init_process_group(BACKENDS[request.param], store=store, rank=0, world_size=1)
    yield request.param
    torch.distributed.destroy_process_group()


def outcome(layer, images, mode):
    """What a layer makes of images, and with which gradients and statistics."""
    images = images.detach().clone().requires_grad_()
    with mode:
        found = layer(images)
    (found * torch.linspace(-1, 1, found.numel(), device=found.device).view_as(found)).sum().backward()
    return [found, images.grad, *(weight.grad for weight in layer.parameters()), *layer.buffers()]


@pytest.mark.parametrize(("layer", "shape"), LAYERS.values(), ids=LAYERS.keys())
def test_alone_it_is_what_torch_computes(device, layer, shape):
    images = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(device)
    first, second = (copy.deepcopy(layer).to(device) for _ in range(2))
    for _ in range(2):  # running statistics twice
        expected = outcome(first, images, torch.autocast(device, enabled=False))
        found = outcome(second, images, SharedBatchNorm())
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_in_eval_mode_it_is_torchs_own(device):
    layer = nn.BatchNorm2d(3).to(device).eval()
    images = torch.randn(4, 3, 5, 5, device=device)
    with SharedBatchNorm():
        torch.testing.assert_close(layer(images), images / (1 + layer.eps) ** 0.5)
    assert layer.running_mean.tolist() == [0, 0, 0]


def test_channels_last_and_sixteen_bits_stay_what_they_are(device):
    layer = nn.BatchNorm2d(3).to(device)
    images = torch.randn(4, 3, 5, 5, device=device).contiguous(memory_format=torch.channels_last)
    with SharedBatchNorm(), torch.autocast(device, torch.bfloat16):
        found = layer(images.bfloat16())
    assert found.dtype == torch.bfloat16
    assert found.is_contiguous(memory_format=torch.channels_last)
    expected = nn.BatchNorm2d(3).to(device)(images.bfloat16().float())
    torch.testing.assert_close(found.float(), expected, rtol=1e-2, atol=1e-2)


def test_totals_can_be_differentiated_twice(device):
    values = torch.tensor([1.0, 2.0], device=device, requires_grad=True)
    (gradient,) = torch.autograd.grad(total(values**3).sum(), values, create_graph=True)
    assert gradient.tolist() == [3.0, 12.0]
    (second,) = torch.autograd.grad(gradient.sum(), values)
    assert second.tolist() == [6.0, 12.0]
