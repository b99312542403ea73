"""PyTorch models through the front end: the graph form computes what torch computes, and keeps the layers' names."""

from __future__ import annotations

import warnings
from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from qcc.compiler.frontend import load
from qcc.compiler.pipeline import IMPORT
from qcc.dialects import forms
from qcc.dialects.errors import QccError
from qcc.dialects.mlir import layer_name, walk
from qcc.passes.base import run_pipeline
from qcc.runtime.reference import interpreter
from test.tiers import slow_except

F = nn.functional


def graph_form(model: Any, *inputs: Any) -> Any:
    """`model` (in evaluation mode) in graph form."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own deprecations
        imported = load(model.eval() if isinstance(model, nn.Module) and not isinstance(model, torch.jit.ScriptModule) else model, inputs)
    run_pipeline(imported.module, IMPORT)
    forms.check("graph", imported.module)
    return imported


def ops(imported: Any) -> Counter[str]:
    return Counter(op.name for op in walk(imported.module))


def agrees(model: nn.Module, *inputs: Any, tolerance: float = 2e-5) -> Any:
    """Check that the graph form's results are torch's, and return it."""
    imported = graph_form(model, *inputs)
    with torch.no_grad():
        expected = model(*(x.clone() for x in inputs))
    expected = [expected] if isinstance(expected, torch.Tensor) else list(expected)
    found = interpreter.run(imported.module, [x.numpy() for x in inputs])
    for want, have in zip(expected, found, strict=True):
        assert have.shape == tuple(want.shape)
        np.testing.assert_allclose(have, want.numpy(), rtol=tolerance, atol=tolerance)
    return imported


class Cnn(nn.Module):
    """In-place activation, batch norm, residual, grouped and dilated convolution, pooling, linear."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU(inplace=True))
        self.depthwise = nn.Conv2d(8, 8, 3, padding=2, dilation=2, groups=8)
        self.norm = nn.BatchNorm2d(8)
        self.pool = nn.MaxPool2d(3, 2, 1)
        self.global_pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(8, 5)
        for norm in (self.stem[1], self.norm):
            norm.running_mean.uniform_(-1, 1)
            norm.running_var.uniform_(0.5, 2)
            nn.init.uniform_(norm.weight, 0.5, 2)
            nn.init.uniform_(norm.bias)

    def forward(self, x: Any) -> Any:
        x = self.stem(x)
        x = F.relu6(x + self.norm(self.depthwise(x)))
        return self.fc(torch.flatten(self.global_pool(self.pool(x)), 1))


def test_cnn_agrees_and_keeps_layer_names() -> None:
    torch.manual_seed(0)
    imported = agrees(Cnn(), torch.randn(2, 3, 17, 15))
    assert imported.inputs == ("x",)
    found = ops(imported)
    assert found["func.call"] == 0
    assert (found["qcc.conv2d"], found["qcc.batch_norm"], found["qcc.clamp"], found["qcc.linear"]) == (2, 2, 2, 1)
    names = {op.name: layer_name(op.location) for op in walk(imported.module)}
    assert names["qcc.linear"] == "fc"
    assert [layer_name(op.location) for op in walk(imported.module, "qcc.conv2d")] == ["stem.0", "depthwise"]
    assert [layer_name(op.location) for op in walk(imported.module, "qcc.add")] == ["add"]


class Encoder(nn.Module):
    def __init__(self, width: int = 16, heads: int = 2) -> None:
        super().__init__()
        self.q, self.k, self.v, self.o = (nn.Linear(width, width) for _ in range(4))
        self.n1, self.n2 = nn.LayerNorm(width), nn.LayerNorm(width, eps=1e-12)
        self.f1, self.f2, self.act = nn.Linear(width, 32), nn.Linear(32, width), nn.GELU()
        self.heads = heads

    def split(self, x: Any) -> Any:
        return x.view(*x.shape[:2], self.heads, -1).transpose(1, 2)

    def forward(self, x: Any) -> Any:
        a = F.scaled_dot_product_attention(self.split(self.q(x)), self.split(self.k(x)), self.split(self.v(x)))
        x = self.n1(x + self.o(a.transpose(1, 2).reshape(x.shape)))
        return self.n2(x + self.f2(self.act(self.f1(x))))


def test_encoder_keeps_its_layers_whole() -> None:
    torch.manual_seed(0)
    found = ops(agrees(Encoder(), torch.randn(2, 5, 16)))
    assert (found["qcc.attention"], found["qcc.layer_norm"], found["qcc.unary"], found["qcc.linear"]) == (1, 2, 1, 6)
    assert found["func.call"] == 0


class Function(nn.Module):
    """A model made of one function."""

    def __init__(self, function: Any) -> None:
        super().__init__()
        self.function = function

    def forward(self, *xs: Any) -> Any:
        return self.function(*xs)


class First(nn.Module):
    """The first result of a layer."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Any) -> Any:
        return self.layer(x)[0]


class WithStates(First):
    """All results of a recurrent layer, one after the other."""

    def forward(self, x: Any) -> Any:
        y, states = self.layer(x)
        return torch.cat([part.flatten() for part in (y, *states)])


IMAGE = (2, 4, 8, 6)
CASES: dict[str, tuple[Any, tuple[int, ...]]] = {
    "sub_alpha": (lambda x: torch.sub(x, x * 2, alpha=3), IMAGE),
    "reverse_sub": (lambda x: 3 - x, IMAGE),
    "scalars": (lambda x: (x + 1.5) * 2 / 4 - 1, IMAGE),
    "broadcast": (lambda x: x * x.mean((2, 3), keepdim=True), IMAGE),
    "clamp": (lambda x: torch.clamp(x, max=0.5) + F.hardtanh(x, -0.2, 0.7), IMAGE),
    "activations": (lambda x: F.silu(x) + torch.sigmoid(x) + torch.tanh(x) + F.hardswish(x) + F.hardsigmoid(x) + F.mish(x), IMAGE),
    "parametrised": (lambda x: F.leaky_relu(x, 0.3) + F.elu(x, 0.7) + F.softplus(x) + F.gelu(x, approximate="tanh"), IMAGE),
    "powers": (lambda x: x.square() + x.abs().sqrt() + x**2 + x**3 + x**4 + torch.rsqrt(x.abs() + 1), IMAGE),
    "pads": (lambda x: F.pad(F.pad(x, (1, 2, 3, 0), mode="reflect"), (0, 1, 2, 2), mode="replicate"), IMAGE),
    "circular_pad": (lambda x: F.pad(x, (3, 1, 0, 2), mode="circular"), IMAGE),
    "cropping_pad": (lambda x: F.pad(x, (-1, 2, 1, -2), value=0.5), IMAGE),
    "flips": (lambda x: x.flip(1, -1), IMAGE),
    "many_pieces": (lambda x: torch.index_select(x.flatten(2), 2, torch.arange(40) * 7 % 41), IMAGE),
    "max_pool_ceil": (lambda x: F.max_pool2d(x, 3, 2, 1, ceil_mode=True), IMAGE),
    "avg_pool": (lambda x: F.avg_pool2d(x, 3, 2, 1, count_include_pad=False) + F.avg_pool2d(x, (3, 3), 2, 1), IMAGE),
    "avg_pool_ceil": (lambda x: F.avg_pool2d(x, 3, 2, ceil_mode=True, count_include_pad=False), IMAGE),
    "adaptive_pool": (lambda x: F.adaptive_avg_pool2d(x, (4, 3)), IMAGE),
    "global_mean": (lambda x: x.mean((2, 3)), IMAGE),
    "reductions": (lambda x: x.mean(-1) + x.sum(-1) + x.amax(-1), IMAGE),
    "concatenate": (lambda x: torch.cat([x, x * 2, x[:, :1]], 1), IMAGE),
    "chunks": (lambda x: torch.cat(x.chunk(2, 1)[::-1], 1) + torch.stack([x, x])[1], IMAGE),
    "movement": (lambda x: x.permute(0, 2, 3, 1).reshape(2, -1).unsqueeze(1).expand(2, 3, 192).contiguous().squeeze(0), IMAGE),
    "slices": (lambda x: x[:, 1:, ::2, -3:] * x[:, :1, 1::2, 3:], IMAGE),
    "select": (lambda x: x[:, 2] + x.select(1, -1), IMAGE),
    "pad": (lambda x: F.pad(x, (1, 2, 0, 3), value=1.5), IMAGE),
    "softmax": (lambda x: x.softmax(1), IMAGE),
    "products": (lambda x: x @ x.transpose(-1, -2), IMAGE),
    "causal": (lambda x: F.scaled_dot_product_attention(x, x, x, is_causal=True, scale=0.3), IMAGE),
    "generated_mask": (lambda x: F.scaled_dot_product_attention(x, x, x, attn_mask=torch.ones(8, 8).tril().bool()), IMAGE),
    "generated_positions": (lambda x: x + torch.arange(6).float() * torch.ones(6), IMAGE),
    "uneven_pool": (lambda x: F.adaptive_avg_pool2d(x, (3, 4)), IMAGE),
    "adaptive_max": (lambda x: F.adaptive_max_pool2d(x, (4, 3)), IMAGE),
    "bilinear": (
        lambda x: F.interpolate(x, scale_factor=2, mode="bilinear") + F.interpolate(x, (16, 12), mode="bilinear", align_corners=True),
        IMAGE,
    ),
    "roll": (lambda x: torch.roll(x, (2, -1), (-1, 1)), IMAGE),
    "extremes": (lambda x: x.max(1)[0] - x.min(1)[0], IMAGE),
    "normalize": (lambda x: F.normalize(x, dim=1), IMAGE),
    "shuffles": (lambda x: F.pixel_shuffle(x, 2).repeat_interleave(2, 1), IMAGE),
    "dropout": (lambda x: F.dropout(x, training=False) + x, IMAGE),
}


QUICK = ("scalars", "activations", "pads", "avg_pool_ceil", "reductions", "movement", "slices", "causal", "bilinear", "extremes")


@pytest.mark.parametrize("name", slow_except(CASES, *QUICK))
def test_function_agrees_without_the_generic_path(name: str) -> None:
    function, shape = CASES[name]
    torch.manual_seed(0)
    imported = agrees(Function(function), torch.randn(shape))
    calls = [op.attributes["qcc.generic"] for op in walk(imported.module, "func.call")]
    assert not calls


LAYERS: dict[str, tuple[Any, tuple[int, ...]]] = {
    "conv1d": (lambda: nn.Conv1d(4, 6, 3, stride=2, padding=1, dilation=2, groups=2), (2, 4, 15)),
    "without_batch_axis": (lambda: nn.Sequential(nn.Conv2d(4, 6, 3, padding=1), nn.MaxPool2d(2)), IMAGE[1:]),
    "conv2d_same": (lambda: nn.Conv2d(4, 6, (4, 3), padding="same"), IMAGE),
    "conv2d_asymmetric": (lambda: nn.Sequential(nn.ZeroPad2d((0, 1, 2, 0)), nn.Conv2d(4, 5, 3)), IMAGE),
    "pool1d": (lambda: nn.Sequential(nn.MaxPool1d(3, 2, 1), nn.AvgPool1d(2), nn.AdaptiveAvgPool1d(1)), (2, 4, 16)),
    "batch_norm1d": (lambda: nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4), nn.ReLU()), (3, 6)),
    "norm_without_affine": (lambda: nn.Sequential(nn.BatchNorm2d(4, affine=False), nn.LayerNorm([8, 6], elementwise_affine=False)), IMAGE),
    "in_place_on_the_input": (lambda: nn.ReLU6(inplace=True), IMAGE),
    "prelu": (lambda: nn.Sequential(nn.PReLU(4), nn.PReLU(1)), IMAGE),
    "group_norm": (lambda: nn.GroupNorm(2, 4), IMAGE),
    "rms_norm": (lambda: nn.Sequential(nn.RMSNorm([8, 6]), nn.RMSNorm(6, eps=1e-3, elementwise_affine=False)), IMAGE),
    "lstm": (lambda: First(nn.LSTM(4, 5, batch_first=True)), (2, 3, 4)),
    "gru": (lambda: First(nn.GRU(4, 5, num_layers=2)), (2, 3, 4)),
    "lstm_both_ways": (lambda: WithStates(nn.LSTM(4, 5, num_layers=2, bidirectional=True, proj_size=3)), (3, 2, 4)),
    "gru_without_bias": (lambda: WithStates(nn.GRU(4, 5, bias=False, bidirectional=True)), (3, 2, 4)),
    "rnn_and_another_rule": (lambda: nn.Sequential(First(nn.RNN(4, 5, nonlinearity="relu", batch_first=True)), nn.LogSigmoid()), (2, 3, 4)),
    "multihead": (lambda: nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, dropout=0.0), (2, 3, 8)),
}


@pytest.mark.parametrize(
    "name",
    slow_except(
        LAYERS, "conv2d_asymmetric", "pool1d", "batch_norm1d", "in_place_on_the_input", "group_norm", "lstm_both_ways", "multihead"
    ),
)
def test_layer_agrees_without_the_generic_path(name: str) -> None:
    make, shape = LAYERS[name]
    torch.manual_seed(0)
    imported = agrees(make().eval(), torch.randn(shape))
    assert not ops(imported)["func.call"]


def test_boolean_mask_becomes_an_additive_one() -> None:
    torch.manual_seed(0)
    mask = torch.rand(5, 5) > 0.5
    mask[:, 0] = True
    imported = agrees(Function(lambda x: F.scaled_dot_product_attention(x, x, x, attn_mask=mask)), torch.randn(2, 5, 4))
    assert ops(imported)["qcc.attention"] == 1


def test_embedding_takes_integer_ids() -> None:
    torch.manual_seed(0)
    imported = graph_form(model := nn.Embedding(11, 7), ids := torch.tensor([[1, 2, 10], [0, 0, 3]]))
    (found,) = interpreter.run(imported.module, [ids.numpy()])
    np.testing.assert_array_equal(found, model(ids).detach().numpy())


def test_unknown_operations_are_outlined_with_their_names() -> None:
    model = Function(lambda x: F.relu(torch.cumsum(F.relu(x), 1).sin().cumsum(2)))
    imported = graph_form(model, torch.randn(2, 3, 4))
    reasons = [str(op.attributes["qcc.generic"].value) for op in walk(imported.module, "func.call")]
    assert reasons == ["cumsum: no codelet", "cumsum: no codelet"]
    assert [layer_name(op.location) for op in walk(imported.module, "func.call")] == ["cumsum", "cumsum_1"]


@pytest.mark.slow
def test_exported_program_and_pt2_file_give_the_same_module(tmp_path: Any) -> None:
    torch.manual_seed(0)
    model, x = Cnn().eval(), torch.randn(1, 3, 9, 9)
    program = torch.export.export(model, (x,))
    torch.export.save(program, str(tmp_path / "m.pt2"))
    first, second, third = graph_form(program), graph_form(str(tmp_path / "m.pt2")), graph_form(program)
    for imported in (first, second, third):  # the program itself is not changed by importing it
        (found,) = interpreter.run(imported.module, [x.numpy()])
        np.testing.assert_allclose(found, model(x).detach().numpy(), rtol=2e-5, atol=2e-5)
    assert ops(first) == ops(second) == ops(third)


def test_weights_never_travel_as_text() -> None:
    imported = graph_form(nn.Linear(64, 64), torch.randn(1, 64))
    (weight,) = (op for op in walk(imported.module, "qcc.constant") if "64x64" in str(op.results[0].type))
    assert str(weight.attributes["value"]).startswith("dense_resource<")


class TestBadInput:
    def test_dynamic_axis_is_named(self) -> None:
        program = torch.export.export(nn.ReLU().eval(), (torch.randn(2, 4),), dynamic_shapes=({1: torch.export.Dim.DYNAMIC},))
        with pytest.raises(QccError, match=r"dynamic size at axis 1.*pass example_inputs"):
            load(program)

    def test_open_batch_is_fixed_by_batch(self) -> None:
        program = torch.export.export(nn.Linear(4, 4).eval(), (torch.randn(2, 4),), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},))
        imported = load(program, batch=7)  # alive as long as its function is looked at
        assert "[7,4]" in str(imported.main.attributes["function_type"])

    def test_dynamic_axis_is_fixed_by_example_inputs(self) -> None:
        program = torch.export.export(nn.Linear(4, 4).eval(), (torch.randn(2, 4),), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},))
        imported = graph_form(program, torch.randn(3, 4))
        assert "tensor<3x4xf32>" in str(imported.main.attributes["function_type"])

    def test_a_batch_that_the_model_does_not_have(self) -> None:
        for model, inputs in (
            (nn.Linear(4, 4).eval(), (torch.zeros(2, 4),)),
            (torch.export.export(nn.Linear(4, 4).eval(), (torch.zeros(2, 4),)), None),
        ):
            with pytest.raises(QccError, match=r"batch is 5 but no input of the model has a dynamic first axis"):
                load(model, inputs, batch=5)

    def test_module_without_example_inputs(self) -> None:
        with pytest.raises(QccError, match=r"pass example_inputs"):
            load(nn.Linear(4, 4).eval())

    def test_training_mode(self) -> None:
        with pytest.raises(QccError, match=r"model.eval"):
            load(nn.Dropout(0.5), (torch.randn(2, 4),))

    def test_untraceable_model(self, capfd: pytest.CaptureFixture[str]) -> None:
        for function, words in (
            (lambda x: x if x.sum() > 0 else -x, "by the value of a tensor"),
            (lambda x: x.numpy(), "torch.export cannot trace the model"),
            (lambda x: x * x.sum().item(), "read out of a tensor"),
            (lambda x: torch.dropout(x, 0.5, True), "dropout.* random numbers"),
            (lambda x: None, "returns None"),
        ):
            with pytest.raises(QccError, match=words):
                load(Function(function).eval(), (torch.randn(2, 4),))
        assert capfd.readouterr() == ("", "")  # torch says a lot more

    def test_results_that_are_no_tensors_are_left_out(self) -> None:
        imported = load(Function(lambda x: (x, None, 3, [x + 1, "words"])).eval(), torch.randn(2, 4))
        assert imported.outputs == ("output_0", "output_1")

    def test_torchscript(self, tmp_path: Any) -> None:
        model, x = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()).eval(), torch.randn(1, 3, 5, 5)
        traced = torch.jit.trace(model, x)
        traced.save(tmp_path / "m.pt")
        for source in (traced, torch.jit.freeze(traced), tmp_path / "m.pt"):
            found = interpreter.run(graph_form(source, x).module, [x.numpy()])[0]
            np.testing.assert_allclose(found, model(x).detach().numpy(), rtol=1e-5, atol=1e-5)
        torch.save(model.state_dict(), tmp_path / "weights.pt")
        with pytest.raises(QccError, match=r"weights alone are no model"):
            load(tmp_path / "weights.pt", (x,))

    def test_changed_parameters(self) -> None:
        class Counter(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.seen = nn.Parameter(torch.zeros(1), requires_grad=False)

            def forward(self, x: Any) -> Any:
                self.seen += 1
                return x + self.seen

        with pytest.raises(QccError, match=r"writes to 'seen' \(parameter_mutation\), expected one that changes no more than buffers"):
            load(Counter().eval(), (torch.randn(2, 4),))

    def test_truncated_file(self, tmp_path: Any) -> None:
        (tmp_path / "m.pt2").write_bytes(b"PK\x03\x04 nothing")
        with pytest.raises(QccError, match=r"cannot be read as a .pt2 file"):
            load(tmp_path / "m.pt2")

    def test_other_objects(self) -> None:
        with pytest.raises(QccError, match=r"found a list, expected a torch.nn.Module"):
            load([1, 2])
