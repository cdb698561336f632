"""Backends: what they refuse, what they accept, and that they agree."""

import os

import numpy as np
import onnx
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from dualrs.models import Recipe, build_network
from dualrs.sampling import (
    Backend,
    CallableBackend,
    NotAFixedFunctionError,
    OnnxBackend,
    TorchBackend,
    check_fixed_function,
    export_onnx,
    make_backend,
    precision_of,
    refuse_training_mode,
)

BATCH = torch.rand((16, 3, 8, 8), generator=torch.Generator().manual_seed(0))


def small(*layers):
    return nn.Sequential(nn.Conv2d(3, 4, 3), *layers, nn.Flatten(), nn.Linear(4 * 6 * 6, 5))


def resnet9():
    """A network whose normalisation statistics and biases are nowhere trivial."""
    net = build_network(Recipe("resnet9", {"num_classes": 10, "width": 8, "mean": [0.4] * 3, "std": [0.2] * 3}))
    generator = torch.Generator().manual_seed(5)
    for layer in net.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.normal_(layer.weight, 1.0, 0.3, generator=generator)
            nn.init.normal_(layer.bias, 0.0, 0.3, generator=generator)
            nn.init.normal_(layer.running_mean, 0.0, 0.3, generator=generator)
            nn.init.uniform_(layer.running_var, 0.3, 2.0, generator=generator)
        elif isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(layer.weight, generator=generator)
    return net.eval()


@pytest.fixture(scope="module")
def exported():
    """The ONNX bytes of a small network for batches of 16, and the network."""
    net = small(nn.BatchNorm2d(4), nn.ReLU()).eval()
    return export_onnx(net, BATCH), net


# What is no fixed function.


@pytest.mark.parametrize(
    ("layer", "what"),
    [
        (nn.BatchNorm2d(4), "statistics of the batch"),
        (nn.SyncBatchNorm(4), "statistics of the batch"),
        (nn.Dropout(0.1), "at random"),
        (nn.Dropout2d(0.5), "at random"),
        (nn.AlphaDropout(0.5), "at random"),
    ],
)
def test_layers_in_training_mode_are_refused_with_a_remedy(layer, what):
    with pytest.raises(NotAFixedFunctionError, match=rf"layer '1' \({type(layer).__name__}\).*{what}.*\.eval\(\)"):
        make_backend(small(layer).train(), input_shape=(3, 8, 8), batch_size=4)
    refuse_training_mode(small(layer).eval())


def test_one_layer_left_in_training_mode_is_enough():
    net = small(nn.Sequential(nn.ReLU(), nn.BatchNorm2d(4))).eval()
    net[1][1].train()
    with pytest.raises(NotAFixedFunctionError, match=r"layer '1\.1'"):
        TorchBackend(net)


def test_batch_norm_without_running_statistics_is_refused_in_any_mode():
    with pytest.raises(NotAFixedFunctionError, match=r"keeps no running statistics.*track_running_stats=True"):
        TorchBackend(small(nn.BatchNorm2d(4, track_running_stats=False)).eval())


def test_harmless_layers_may_be_in_training_mode():
    backend = TorchBackend(small(nn.Dropout(0.0), nn.GroupNorm(2, 4), nn.ReLU()).train())
    check_fixed_function(backend, BATCH)


def test_a_module_that_goes_back_to_training_is_refused_when_it_is_asked():
    net = small(nn.BatchNorm2d(4)).eval()
    backend = TorchBackend(net)
    backend.logits(BATCH)
    net.train()
    before = net[1].running_mean.clone()
    with pytest.raises(NotAFixedFunctionError):
        backend.logits(BATCH)
    assert torch.equal(net[1].running_mean, before)


def linear(batch):
    return batch.flatten(1) @ torch.linspace(-1, 1, 192 * 3).view(192, 3)


def check_repeatedly(backend, batch):
    for _ in range(20):  # chance may spare a small batch
        check_fixed_function(backend, batch)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: F.dropout(linear(x), 0.5),
        lambda x: linear(F.dropout(x, 0.05)),
        lambda x: linear(x + 0.1 * torch.randn_like(x)),
        lambda x: linear(x - x.mean()),
        lambda x: linear(x - x.mean(dim=0)),
        lambda x: linear(x / x.std()),
        lambda x: linear((x - x.mean(dim=(0, 2, 3), keepdim=True)) / x.std(dim=(0, 2, 3), keepdim=True)),
        lambda x: linear(x / x.max()),
        lambda x: linear(x).softmax(dim=0),
        lambda x: linear(x) + torch.arange(len(x))[:, None],
        lambda x: linear(x).cumsum(dim=0),
        lambda x: torch.where(torch.rand(len(x), 1) < 0.3, float("nan"), linear(x)),
    ],
)
@pytest.mark.parametrize("rows", [2, 16])
def test_what_depends_on_chance_or_company_is_refused(function, rows):
    torch.manual_seed(0)
    with pytest.raises(NotAFixedFunctionError, match="random or depends on the rest of the batch"):
        check_repeatedly(CallableBackend(function), BATCH[:rows])


@pytest.mark.parametrize(
    "function",
    [
        linear,
        lambda x: linear(x.clamp(0, 1)),
        lambda x: linear(x.clamp_(0, 1).mul_(3)),
        lambda x: linear((x - x.mean(dim=(1, 2, 3), keepdim=True)) / x.std(dim=(1, 2, 3), keepdim=True)),
        lambda x: linear(x) * torch.tensor([1.0, float("nan"), float("inf")]),
        lambda x: torch.zeros(len(x), 2),
    ],
)
@pytest.mark.parametrize("rows", [1, 2, 3, 16])
def test_fixed_functions_pass_with_their_logits_and_the_batch_stays_as_it_was(function, rows):
    batch = BATCH[:rows].clone()
    logits = check_fixed_function(CallableBackend(function), batch)
    torch.testing.assert_close(logits, function(BATCH[:rows].clone()), rtol=0, atol=0, equal_nan=True)
    assert torch.equal(batch, BATCH[:rows])


def test_logits_in_memory_that_is_used_again_are_checked_and_returned_right():
    memory = torch.empty(16, 3)

    def reusing(function):
        return CallableBackend(lambda x: memory.copy_(function(x)))

    assert torch.equal(check_fixed_function(reusing(linear), BATCH), linear(BATCH))
    with pytest.raises(NotAFixedFunctionError):
        check_fixed_function(reusing(lambda x: linear(x - x.mean())), BATCH)


# ONNX.


@pytest.mark.slow
def test_onnx_runtime_and_torch_cast_the_same_votes():
    net = resnet9()
    eager, exported = TorchBackend(net), make_backend(net, input_shape=(3, 32, 32), batch_size=128, backend="onnx")
    assert exported.name == "onnxruntime"
    generator = torch.Generator().manual_seed(0)
    agree, classes = [], set()
    for _ in range(16):
        noisy = torch.rand((128, 3, 32, 32), generator=generator) + torch.randn((128, 3, 32, 32), generator=generator)
        first, second = eager.logits(noisy), exported.logits(noisy)
        agree.append((first.argmax(1) == second.argmax(1)).float().mean())
        classes |= set(first.argmax(1).tolist())
        torch.testing.assert_close(first, second, rtol=1e-3, atol=1e-4)
    assert np.mean(agree) >= 0.999
    assert len(classes) > 2  # a constant answer would agree with anything


def test_a_file_runs_like_the_module(exported, tmp_path):
    content, net = exported
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    for given in (path, str(path)):
        backend = make_backend(given, input_shape=(3, 8, 8), batch_size=99)
        assert isinstance(backend, Backend)
        assert backend.batch_size == 16
        torch.testing.assert_close(backend.logits(BATCH), TorchBackend(net).logits(BATCH), rtol=1e-4, atol=1e-5)


def test_a_file_may_keep_its_weights_in_a_second_file(exported, tmp_path, monkeypatch):
    model = onnx.load_model_from_string(exported[0])
    onnx.save_model(model, tmp_path / "m.onnx", save_as_external_data=True, location="m.data", size_threshold=64)
    assert (tmp_path / "m.data").stat().st_size > 100
    monkeypatch.chdir(tmp_path.parent)
    expected = OnnxBackend(exported[0]).logits(BATCH)
    assert torch.equal(OnnxBackend(tmp_path / "m.onnx").logits(BATCH), expected)


def test_a_file_with_a_free_batch_dimension_takes_any_batch():
    net = small().eval()
    batch = torch.export.Dim("batch", min=2)
    program = torch.onnx.export(net, (BATCH,), dynamo=True, dynamic_shapes=({0: batch},), verbose=False)
    backend = OnnxBackend(program.model_proto.SerializeToString())
    assert backend.batch_size is None
    for rows in (1, 5, 16):
        assert backend.logits(BATCH[:rows]).shape == (rows, 5)


def test_inputs_of_another_shape_are_refused_in_words(exported):
    backend = OnnxBackend(exported[0])
    with pytest.raises(ValueError, match=r"takes batches of shape \(16, 3, 8, 8\); got \(16, 3, 9, 9\)"):
        backend.logits(torch.zeros(16, 3, 9, 9))
    with pytest.raises(ValueError, match=r"got \(16, 3\)"):
        backend.logits(torch.zeros(16, 3))


def test_files_that_are_no_models_are_refused(tmp_path):
    (tmp_path / "broken.onnx").write_bytes(b"no model at all")
    with pytest.raises(ValueError, match=r"broken\.onnx is not a model that ONNX Runtime can load"):
        make_backend(tmp_path / "broken.onnx", input_shape=(3,), batch_size=4)
    with pytest.raises(FileNotFoundError, match=r"absent\.onnx"):
        make_backend(tmp_path / "absent.onnx", input_shape=(3,), batch_size=4)
    with pytest.raises(ValueError, match=r"must be an \.onnx file; got 'weights\.pt'"):
        make_backend("weights.pt", input_shape=(3,), batch_size=4)


@pytest.mark.parametrize("types", [["INT64"], ["FLOAT", "FLOAT"]])
def test_models_with_other_inputs_are_refused(types):
    inputs = [
        onnx.helper.make_tensor_value_info(f"x{i}", getattr(onnx.TensorProto, t), [None, 2])
        for i, t in enumerate(types)
    ]
    output = onnx.helper.make_tensor_value_info("y", getattr(onnx.TensorProto, types[0]), [None, 2])
    graph = onnx.helper.make_graph([onnx.helper.make_node("Identity", ["x0"], ["y"])], "g", inputs, [output])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=9)
    with pytest.raises(ValueError, match="has one float32 input; this model has"):
        OnnxBackend(model.SerializeToString())


class NotExportable(nn.Module):
    def forward(self, x):
        rows = x.flatten(1).tolist()  # leaves the graph
        return torch.tensor([[sum(row), max(row)] for row in rows])


def test_auto_falls_back_to_torch_and_onnx_insists():
    arguments = {"input_shape": (3, 8, 8), "batch_size": 4}
    backend = make_backend(NotExportable().eval(), **arguments)
    assert isinstance(backend, TorchBackend)
    assert backend.logits(BATCH[:4]).shape == (4, 2)
    with pytest.raises(ValueError, match="cannot run in ONNX Runtime"):
        make_backend(NotExportable().eval(), **arguments, backend="onnx")


def test_an_export_that_computes_something_else_is_not_used(monkeypatch):
    other = export_onnx(small().eval(), BATCH)
    monkeypatch.setattr("dualrs.sampling.choice.export_onnx", lambda module, example: other)
    arguments = {"input_shape": (3, 8, 8), "batch_size": 16}
    assert isinstance(make_backend(small().eval(), **arguments), TorchBackend)
    with pytest.raises(ValueError, match="logits differ from the module's"):
        make_backend(small().eval(), **arguments, backend="onnx")


def test_modules_are_exported_for_the_batches_they_will_get():
    backend = make_backend(small().eval(), input_shape=(3, 8, 8), batch_size=4)
    assert isinstance(backend, OnnxBackend)
    assert backend.batch_size == 4
    assert isinstance(make_backend(small().eval(), input_shape=(3, 8, 8), batch_size=4, backend="torch"), TorchBackend)


def test_onnx_runs_on_the_cpu_only_and_leaves_the_module_where_it_is():
    net = small().eval()
    with pytest.raises(ValueError, match="device 'meta' needs backend='torch' or 'compile'"):
        make_backend(net, input_shape=(3, 8, 8), batch_size=4, backend="onnx", device="meta")
    assert net[0].weight.device.type == "cpu"


def test_onnx_computes_in_float32_only():
    arguments = {"input_shape": (3, 8, 8), "batch_size": 4}
    with pytest.raises(ValueError, match="computes in float32; precision 'bfloat16' needs backend='torch'"):
        make_backend(small().eval(), **arguments, backend="onnx", precision="bfloat16")
    assert make_backend(small().eval(), **arguments).precision == "float32"


def test_the_precision_of_a_file_is_its_own(exported, tmp_path):
    (tmp_path / "m.onnx").write_bytes(exported[0])
    assert precision_of(make_backend(tmp_path / "m.onnx", input_shape=(3, 8, 8), batch_size=16)) == "its own"
    with pytest.raises(ValueError, match=r"can be asked of a torch\.nn\.Module only"):
        make_backend(tmp_path / "m.onnx", input_shape=(3, 8, 8), batch_size=16, precision="float16")


# Other bases.


@pytest.mark.parametrize(
    "convert",
    [
        lambda t: t,
        lambda t: t.numpy(),
        lambda t: t.double().numpy(),
        lambda t: t.tolist(),
        lambda t: t.numpy()[:, ::-1],
    ],
)
def test_callables_may_return_tensors_arrays_or_lists(convert):
    backend = make_backend(lambda x: convert(linear(x)), input_shape=(3, 8, 8), batch_size=4)
    expected = torch.tensor(np.asarray(convert(linear(BATCH))).tolist())
    assert torch.equal(backend.logits(BATCH).float(), expected)


def test_callables_may_return_read_only_arrays_and_gradients():
    def frozen(batch):
        logits = linear(batch).numpy()
        logits.flags.writeable = False
        return logits

    assert CallableBackend(frozen).logits(BATCH).shape == (16, 3)
    logits = CallableBackend(lambda x: linear(x) * nn.Parameter(torch.ones(3))).logits(BATCH)
    assert not logits.requires_grad


@pytest.mark.parametrize("shape", [(16,), (16, 1), (16, 3, 1), (15, 3), (1, 3), ()])
def test_logits_of_another_shape_are_refused(shape):
    message = rf"logits of shape \(B, K\), K ≥ 2; for a batch of 16 it gave {shape}".replace("gave (", r"gave \(")
    with pytest.raises(ValueError, match=message.removesuffix(")") + r"\)"):
        CallableBackend(lambda x: torch.zeros(shape)).logits(BATCH)


def test_a_backend_is_taken_as_it_is():
    backend = CallableBackend(linear)
    assert make_backend(backend, input_shape=(3, 8, 8), batch_size=4) is backend


def test_backends_of_others_need_not_know_of_precision():
    class Foreign:
        name, device, batch_size = "mine", "cpu", None

        def logits(self, batch):
            return linear(batch)

    backend = Foreign()
    assert isinstance(backend, Backend)
    assert make_backend(backend, input_shape=(3, 8, 8), batch_size=4) is backend
    assert precision_of(backend) == "its own"


def test_callables_have_a_precision_of_their_own():
    assert precision_of(make_backend(linear, input_shape=(3, 8, 8), batch_size=4)) == "its own"
    with pytest.raises(ValueError, match="precision 'bfloat16' can be asked of"):
        make_backend(linear, input_shape=(3, 8, 8), batch_size=4, precision="bfloat16")
    logits = CallableBackend(lambda x: linear(x).bfloat16()).logits(BATCH)
    assert logits.dtype == torch.float32


@pytest.mark.parametrize("base", [None, 3, b"bytes", [linear]])
def test_anything_else_is_refused(base):
    with pytest.raises(TypeError, match=f"or a callable.*got {type(base).__name__}"):
        make_backend(base, input_shape=(3, 8, 8), batch_size=4)


def test_unknown_backends_are_refused():
    with pytest.raises(ValueError, match="unknown backend 'tensorrt'; known: auto, torch, compile, onnx"):
        make_backend(linear, input_shape=(3, 8, 8), batch_size=4, backend="tensorrt")


def test_unknown_precisions_are_refused():
    with pytest.raises(ValueError, match="unknown precision 'int8'; known: float32, bfloat16, float16"):
        make_backend(linear, input_shape=(3, 8, 8), batch_size=4, precision="int8")


def test_paths_may_be_of_any_kind(exported, tmp_path):
    (tmp_path / "m.onnx").write_bytes(exported[0])

    class Somewhere(os.PathLike):
        def __fspath__(self):
            return str(tmp_path / "m.onnx")

    assert make_backend(Somewhere(), input_shape=(3, 8, 8), batch_size=16).batch_size == 16
