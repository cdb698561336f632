"""Torch backends: precision, compilation, and that each is one fixed function."""

import pytest
import torch
from torch import nn

from dualrs.models import Recipe, build_network
from dualrs.sampling import CompiledBackend, TorchBackend, check_fixed_function, make_backend
from dualrs.sampling.torch_backend import _SETTINGS

BATCH = torch.randn((16, 3, 32, 32), generator=torch.Generator().manual_seed(0))
ARGUMENTS = {"input_shape": (3, 32, 32), "batch_size": 16}


@pytest.fixture(scope="module")
def net():
    """A network whose normalisation statistics are nowhere trivial."""
    torch.manual_seed(0)
    net = build_network(Recipe("resnet9", {"num_classes": 10, "width": 8, "mean": [0.4] * 3, "std": [0.2] * 3}))
    for layer in net.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.normal_(layer.running_mean, 0.0, 0.3)
            nn.init.uniform_(layer.running_var, 0.3, 2.0)
    return net.eval()


@pytest.fixture
def no_export(monkeypatch):
    monkeypatch.setattr("dualrs.sampling.choice.export_onnx", None)


def check_places(backend, batch):
    """Every row has the same logits wherever it stands, whoever its neighbours are."""
    check_fixed_function(backend, batch)
    reference = backend.logits(batch)
    assert torch.equal(backend.logits(batch), reference)
    for seed in range(5):
        order = torch.randperm(len(batch), generator=torch.Generator().manual_seed(seed))
        assert torch.equal(backend.logits(batch[order]), reference[order])
    strangers = 3 * torch.randn(batch.shape, generator=torch.Generator().manual_seed(9))
    strangers[-1] = batch[0]
    assert torch.equal(backend.logits(strangers)[-1], reference[0])


# Precision.


@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 1e-5), ("bfloat16", 0.05), ("float16", 0.01)])
@pytest.mark.parametrize(("backend", "name"), [("torch", "torch"), ("auto", "torch folded")])
def test_every_precision_is_one_fixed_function_near_the_module(net, no_export, precision, tolerance, backend, name):
    made = make_backend(net, **ARGUMENTS, backend=backend, precision=precision)
    assert (made.name, made.precision) == (name, precision)
    check_places(made, BATCH)
    expected, found = TorchBackend(net).logits(BATCH), made.logits(BATCH)
    assert found.dtype == torch.float32
    assert torch.allclose(found, expected, rtol=0, atol=tolerance * expected.abs().max().item())
    assert precision == "float32" or not torch.equal(found, expected)


def test_auto_on_the_cpu_leaves_other_precisions_to_torch(net):
    assert make_backend(net, **ARGUMENTS, precision="bfloat16").name == "torch folded"


def test_the_module_keeps_its_weights_in_float32(net):
    make_backend(net, **ARGUMENTS, precision="bfloat16").logits(BATCH)
    assert {parameter.dtype for parameter in net.parameters()} == {torch.float32}


def test_an_autocast_of_the_caller_does_not_reach_in(net):
    backend = TorchBackend(net)
    expected = backend.logits(BATCH)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(backend.logits(BATCH), expected)


class Spy(nn.Module):
    """Notes the settings it runs under, and may fail."""

    def __init__(self, fail=False):
        super().__init__()
        self.fail = fail

    def forward(self, x):
        self.seen = settings()
        if self.fail:
            raise RuntimeError("failed")
        return x.flatten(1)[:, :3]


def settings():
    seen = []
    for read, _, _ in _SETTINGS:
        try:
            seen.append(read())
        except RuntimeError:  # contradictory settings cannot be read
            seen.append(None)
    return seen


def fine_tf32():
    torch.backends.cudnn.conv.fp32_precision = "ieee"  # and not of rnn: what allow_tf32 is cannot be told


@pytest.mark.parametrize(
    "allow",
    [
        lambda: None,
        lambda: torch.set_float32_matmul_precision("high"),
        lambda: torch.set_float32_matmul_precision("medium"),
        lambda: setattr(torch.backends.cudnn, "allow_tf32", False),
        pytest.param(
            fine_tf32,
            marks=pytest.mark.skipif(not hasattr(torch.backends.cudnn, "conv"), reason="settings of torch 2.9"),
        ),
    ],
)
@pytest.mark.parametrize("fail", [False, True])
def test_float32_is_exact_whatever_the_caller_allows_and_the_callers_setting_comes_back(allow, fail):
    start = settings()
    try:
        allow()
        before = settings()
        backend = TorchBackend(spy := Spy(fail).eval())
        if fail:
            with pytest.raises(RuntimeError, match="failed"):
                backend.logits(BATCH)
        else:
            backend.logits(BATCH)
        assert settings() == before
        readable = [(seen, exact) for seen, (_, _, exact) in zip(spy.seen, _SETTINGS, strict=True) if seen is not None]
        assert all(seen == exact for seen, exact in readable)
        assert len(readable) >= len(_SETTINGS) - before.count(None)
    finally:
        for (_, write, _), value in zip(_SETTINGS, start, strict=True):
            write(value)
    assert settings() == start


# Compilation.


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_compiled_module_is_one_fixed_function_near_the_module(net, precision):
    backend = make_backend(net, **ARGUMENTS, backend="compile", precision=precision)
    assert isinstance(backend, CompiledBackend)
    assert (backend.name, backend.precision, backend.batch_size) == ("torch folded compiled", precision, 16)
    check_places(backend, BATCH)
    expected = TorchBackend(net).logits(BATCH)
    tolerance = {"float32": 1e-5, "bfloat16": 0.05}[precision] * expected.abs().max().item()
    assert torch.allclose(backend.logits(BATCH), expected, rtol=0, atol=tolerance)
    with pytest.raises(ValueError, match=r"compiled for batches of \(16, 3, 32, 32\); got \(8, 3, 32, 32\)"):
        backend.logits(BATCH[:8])


@pytest.mark.slow
def test_images_of_odd_sizes_have_the_same_logits_in_every_place_when_compiled():
    torch.manual_seed(0)
    # The head's 144 features are a multiple of 4: MKL's matrix product rounds by the alignment of a row in memory.
    odd = nn.Sequential(
        nn.Conv2d(3, 7, 3), nn.GELU(), nn.AvgPool2d(2), nn.Conv2d(7, 16, 2), nn.Tanh(), nn.Flatten(), nn.Linear(144, 3)
    ).eval()
    batch = torch.randn(13, 3, 11, 11)
    backend = make_backend(odd, input_shape=(3, 11, 11), batch_size=13, backend="compile")
    assert backend.name == "torch compiled"  # there was nothing to fold
    check_places(backend, batch)


@pytest.mark.slow
def test_a_compiled_copy_is_a_copy():
    head = nn.Sequential(nn.Flatten(), nn.Linear(192, 4)).eval()
    backend = make_backend(head, input_shape=(3, 8, 8), batch_size=2, backend="compile")
    batch = torch.ones(2, 3, 8, 8)
    expected = backend.logits(batch)
    head[1].weight.data.zero_()
    assert torch.equal(backend.logits(batch), expected)


@pytest.mark.slow
def test_any_number_of_modules_can_be_compiled():
    batch = torch.ones(2, 3, 8, 8)
    with torch._dynamo.config.patch(recompile_limit=1):
        for size in (2, 3, 4):
            net = nn.Sequential(nn.Flatten(), nn.Linear(192, size)).eval()
            backend = make_backend(net, input_shape=(3, 8, 8), batch_size=2, backend="compile")
            assert backend.logits(batch).shape == (2, size)


class Leaves(nn.Module):
    """Cannot be compiled in one graph: it leaves for Python."""

    def forward(self, x):
        return torch.tensor([[sum(row), max(row)] for row in x.flatten(1).tolist()])


@pytest.mark.slow
def test_what_cannot_be_compiled_is_refused_with_the_reason():
    with pytest.raises(ValueError, match=r"cannot run compiled: torch\.compile failed: .+"):
        make_backend(Leaves().eval(), input_shape=(3, 8, 8), batch_size=4, backend="compile")


@pytest.mark.slow
def test_a_missing_compiler_is_named(tmp_path):
    net = nn.Sequential(nn.Flatten(), nn.Linear(192, 6), nn.GELU(), nn.Linear(6, 3)).eval()
    missing = {"cpp.cxx": (None, str(tmp_path / "absent")), "force_disable_caches": True}
    with (
        torch._inductor.config.patch(missing),
        pytest.raises(ValueError, match=r"cannot run compiled: torch\.compile failed: .*C\+\+ compiler"),
    ):
        make_backend(net, input_shape=(3, 8, 8), batch_size=4, backend="compile")


def test_what_compiles_to_something_else_is_refused(net, monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda module, **kwargs: lambda batch: module(batch) + 1)
    with pytest.raises(ValueError, match="the compiled model's logits differ from the module's"):
        make_backend(net, **ARGUMENTS, backend="compile")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("backend", ["torch", "auto"])
def test_on_a_gpu_every_backend_is_one_fixed_function(net, backend, precision):
    made = make_backend(net, **ARGUMENTS, backend=backend, precision=precision, device="cuda")
    assert made.name == {"torch": "torch", "auto": "torch folded compiled"}[backend]
    check_places(made, BATCH)
    net.cpu()
