"""Folding: the same function to rounding, and nothing folded that the graph does not prove."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations
from torchvision.models import resnet18

from dualrs.models import Recipe, build_network
from dualrs.sampling import TorchBackend, export_onnx, make_backend
from dualrs.sampling.folding import fold_batch_norms

BATCH = torch.rand((16, 3, 8, 8), generator=torch.Generator().manual_seed(0))
NORMS = nn.modules.batchnorm._BatchNorm


def randomised(net):
    """The network in eval mode, with normalisation statistics and weights that are nowhere trivial."""
    generator = torch.Generator().manual_seed(5)
    for layer in net.modules():
        if isinstance(layer, NORMS):
            for tensor in (layer.weight, layer.bias) if layer.affine else ():
                nn.init.normal_(tensor, 0.5, 0.3, generator=generator)
            nn.init.normal_(layer.running_mean, 0.0, 0.3, generator=generator)
            nn.init.uniform_(layer.running_var, 0.3, 2.0, generator=generator)
    return net.eval()


def resnet9():
    return build_network(Recipe("resnet9", {"num_classes": 10, "width": 8, "mean": [0.4] * 3, "std": [0.2] * 3}))


def check(net, batch, *, left):
    """Folds, compares, counts the norms that are left, and returns the folded copy."""
    before = copy.deepcopy(net.state_dict())
    folded = fold_batch_norms(net, batch)
    with torch.inference_mode():
        expected = net(batch.clone())
        torch.testing.assert_close(folded(batch.clone()), expected, rtol=1e-5, atol=1e-5 * expected.abs().max().item())
    assert sum(isinstance(layer, NORMS) for layer in folded.modules()) == left
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())
    ours = {tensor.data_ptr() for tensor in folded.state_dict().values()}
    assert not ours & {tensor.data_ptr() for tensor in net.state_dict().values()}
    return folded


def head(channels, size=36):
    return nn.Flatten(), nn.Linear(channels * size, 5)


# What is folded.


def test_a_resnet9_is_folded_whole():
    check(randomised(resnet9()), torch.randn(8, 3, 32, 32), left=0)


@pytest.mark.slow
def test_a_resnet18_of_torchvision_is_folded_whole():
    check(randomised(resnet18(num_classes=10)), torch.randn(4, 3, 64, 64), left=0)


@pytest.mark.parametrize(
    ("net", "batch"),
    [
        (nn.Sequential(nn.Conv2d(3, 4, 3, groups=1, bias=False), nn.BatchNorm2d(4), *head(4)), BATCH),
        (nn.Sequential(nn.Conv2d(3, 6, 3, groups=3, padding_mode="reflect"), nn.BatchNorm2d(6), *head(6)), BATCH),
        (nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, affine=False), *head(4)), BATCH),
        (nn.Sequential(nn.Conv2d(3, 4, 3), nn.SyncBatchNorm(4), *head(4)), BATCH),
        (nn.Sequential(nn.ConvTranspose2d(3, 4, 3), nn.BatchNorm2d(4), *head(4, 100)), BATCH),
        (nn.Sequential(nn.Conv1d(3, 4, 3), nn.BatchNorm1d(4), *head(4, 6)), BATCH[..., 0]),
        (nn.Sequential(nn.Conv3d(3, 4, 3), nn.BatchNorm3d(4), *head(4, 216)), torch.randn(2, 3, 8, 8, 8)),
        (nn.Sequential(nn.Flatten(), nn.Linear(192, 4), nn.BatchNorm1d(4)), BATCH),
        (nn.Sequential(nn.Flatten(), nn.Linear(192, 4, bias=False), nn.BatchNorm1d(4, affine=False)), BATCH),
    ],
)
def test_layers_of_every_kind_take_up_the_norm_behind_them(net, batch):
    check(randomised(net), batch, left=0)


class Shared(nn.Module):
    """One convolution in two places, with a norm of its own behind each."""

    def __init__(self):
        super().__init__()
        self.conv, self.a, self.b = nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3), nn.BatchNorm2d(3)
        self.head = nn.Linear(192, 5)

    def forward(self, x):
        return self.head(self.b(self.conv(self.a(self.conv(x)).relu())).flatten(1))


class OnceBare(Shared):
    def forward(self, x):
        return self.head((self.a(self.conv(x)) + self.conv(x)).flatten(1))


@pytest.mark.parametrize("kind", [Shared, OnceBare])
def test_a_convolution_used_twice_is_folded_in_each_place_by_itself(kind):
    torch.manual_seed(0)
    net = randomised(kind())
    folded = check(net, BATCH, left=0)
    assert sum(isinstance(layer, nn.Conv2d) for layer in folded.modules()) == 2


def test_a_weight_of_two_layers_is_changed_for_none_of_them_by_the_other():
    net = nn.Sequential(nn.Conv2d(3, 3, 3), nn.BatchNorm2d(3), nn.Conv2d(3, 3, 3), nn.ReLU(), *head(3, 16))
    net[2].weight = net[0].weight
    check(randomised(net), BATCH, left=0)


class Optional(nn.Module):
    """Has an argument that is None unless given, as traced it would be neither."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), *head(4))

    def forward(self, x, shift=None, *, scale=2.0):
        return self.body(x if shift is None else x + shift) * scale


def test_arguments_with_defaults_keep_them():
    check(randomised(Optional()), BATCH, left=0)


# What is not.


class OtherConsumers(Shared):
    def forward(self, x):
        y = self.conv(x)
        return self.head((self.a(y) + y + self.b(self.conv(x))).flatten(1))


def test_a_norm_whose_input_is_wanted_elsewhere_stays():
    check(randomised(OtherConsumers()), BATCH, left=1)


class InPlace(Shared):
    def forward(self, x):
        y = self.conv(x)
        y.relu_()
        return self.head(self.b(self.conv(self.a(y))).flatten(1))


def test_a_norm_whose_input_is_changed_in_place_stays():
    check(randomised(InPlace()), BATCH, left=1)


def sequence_norm():
    """Normalises the second dimension of (B, L, C), which is as long as the third."""
    return nn.Sequential(nn.Flatten(2), nn.Linear(64, 3), nn.BatchNorm1d(3), *head(3, 3))


def hooked():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), *head(4))
    net[0].register_forward_hook(lambda module, inputs, output: output.abs())
    return net


def pre_hooked():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), *head(4))

    def recompute(module, inputs):
        module.weight.data.fill_(0.1)

    net[0].register_forward_pre_hook(recompute)
    return net


def replaced():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), *head(4))
    net[0].forward = lambda x: F.conv2d(x, torch.ones(4, 3, 3, 3))
    return net


@pytest.mark.parametrize(
    "make",
    [
        sequence_norm,
        hooked,
        pre_hooked,
        replaced,
        lambda: nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 4, 3), *head(4)),
        lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.BatchNorm2d(4), *head(4)),
        lambda: nn.Sequential(parametrizations.weight_norm(nn.Conv2d(3, 4, 3)), nn.BatchNorm2d(4), *head(4)),
        lambda: nn.Sequential(nn.ConvTranspose2d(3, 6, 3, groups=3), nn.BatchNorm2d(6), *head(6, 100)),
        lambda: nn.Sequential(nn.Conv2d(3, 4, 3), *head(4)),
    ],
)
def test_where_nothing_can_be_folded_the_module_itself_runs(make, monkeypatch):
    monkeypatch.setattr("dualrs.sampling.choice.export_onnx", None)
    net = randomised(make())
    with pytest.raises(ValueError, match="no BatchNorm behind"):
        fold_batch_norms(net, BATCH)
    backend = make_backend(net, input_shape=(3, 8, 8), batch_size=16)
    assert backend.name == "torch"
    assert torch.equal(backend.logits(BATCH), TorchBackend(net).logits(BATCH))


class Branches(nn.Module):
    """Cannot be traced: what it computes depends on values."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), *head(4))

    def forward(self, x):
        return self.body(x) if x.sum() > 0 else self.body(-x)


class TypeAsker(Branches):
    """Is traced wrongly: a tracer's input is no tensor."""

    def forward(self, x):
        return self.body(x if isinstance(x, torch.Tensor) else 2 * x)


class Locked(Branches):
    """Cannot be copied."""

    def __deepcopy__(self, memo):
        raise TypeError("no copies")

    def forward(self, x):
        return self.body(x)


@pytest.mark.parametrize("kind", [Branches, TypeAsker, Locked])
def test_modules_that_cannot_be_traced_run_as_they_are(kind, monkeypatch):
    monkeypatch.setattr("dualrs.sampling.choice.export_onnx", None)
    torch.manual_seed(0)
    net = randomised(kind())
    backend = make_backend(net, input_shape=(3, 8, 8), batch_size=16)
    assert backend.name == "torch"
    assert torch.equal(backend.logits(BATCH), TorchBackend(net).logits(BATCH))


def test_tracing_leaves_no_trace_in_the_module():
    class Remembers(Branches):
        def forward(self, x):
            self.seen = x
            return self.body(x)

    net = randomised(Remembers())
    fold_batch_norms(net, BATCH)
    assert not hasattr(net, "seen")


def test_auto_exports_and_else_folds(monkeypatch):
    net = randomised(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), *head(4)))
    arguments = {"input_shape": (3, 8, 8), "batch_size": 16}
    assert make_backend(net, **arguments).name == "onnxruntime"
    other = export_onnx(nn.Sequential(nn.Conv2d(3, 4, 3), *head(4)).eval(), BATCH)
    monkeypatch.setattr("dualrs.sampling.choice.export_onnx", lambda module, example: other)
    backend = make_backend(net, **arguments)
    assert (backend.name, backend.precision, backend.batch_size) == ("torch folded", "float32", None)
    expected = backend.logits(BATCH)
    net[0].weight.data.zero_()
    assert torch.equal(backend.logits(BATCH), expected)  # a copy
