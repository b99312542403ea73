"""Models that torch.ao quantized in eager mode or FX graph mode, whose packed weights and quantized tensors torch.export cannot trace.

Their modules become others that compute in floats: weights are dequantized from the integers they hold, and what was a quantized tensor is
quantized and dequantized again, so that `fold-qdq` finds integer products. Layers that quantize their input while running read
`qcc::round_dynamic`, of 256 levels even where torch takes 128 lest instructions of old processors saturate; recurrent ones only keep their
weights.
Source: torch.ao.nn.quantized, torch.ao.nn.quantized.dynamic.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.ao.nn.intrinsic.quantized as intrinsic
import torch.ao.nn.intrinsic.quantized.dynamic as intrinsic_dynamic
import torch.ao.nn.quantized as static
import torch.ao.nn.quantized.dynamic as dynamic
import torch.ao.quantization.fx._decomposed as registered
from torch import nn
from torch.fx.node import map_arg
from torch.nn import functional

from qcc.compiler.frontend.torch_nodes import meta_like
from qcc.dialects.errors import QccError

del registered  # its import makes the operators of quantized_decomposed
F = functional
aten = torch.ops.aten
_RANGES: dict[Any, tuple[int, int, Any]] = {
    torch.quint8: (0, 255, torch.uint8),
    torch.qint8: (-128, 127, torch.int8),
    torch.quint4x2: (0, 15, torch.uint8),
}


def as_floats(model: Any) -> Any:
    """`model`, or a copy without modules of torch.ao. Raises QccError that names a module which there is no rule for."""
    if not any(type(module) in _RULES or _is_packed(module) for module in model.modules()):
        return model
    model = copy.deepcopy(model)
    if type(model) in _RULES:
        return _RULES[type(model)](model)
    made: dict[Any, Any] = {}
    for path, module in list(model.named_modules(remove_duplicate=False)):
        parent, _, name = path.rpartition(".")
        if type(module) in _RULES:
            made[module] = made.get(module) or _RULES[type(module)](module)
            setattr(model.get_submodule(parent), name, made[module])
        elif isinstance(module, torch.fx.GraphModule):
            _rewrite(module)
    for path, module in model.named_modules():
        if _is_packed(module):
            kind = f"{type(module).__module__}.{type(module).__name__}"
            raise QccError(f"a quantized module {kind} holds packed weights, which there is no rule for; quantize with torchao", layer=path)
    return model


def _is_packed(module: Any) -> bool:
    return not isinstance(module, torch.jit.ScriptModule) and any(isinstance(v, torch.ScriptObject) for v in vars(module).values())


def round_means(program: Any) -> None:
    """A mean of a tensor that was quantized has its levels, as torch computes it."""
    graph, ops = program.graph, torch.ops.quantized_decomposed
    for node in [n for n in graph.nodes if n.target in _MEANS]:
        levels = _levels(node.args[0])
        if levels is None:
            continue
        made = node
        for target in (ops.quantize_per_tensor.default, ops.dequantize_per_tensor.default):
            with graph.inserting_after(made):
                made = graph.call_function(target, (made, *levels))
            made.meta = meta_like(node, node.meta["val"])
        node.replace_all_uses_with(made, delete_user_cb=lambda user, inner=made.args[0]: user is not inner)
        program.graph_signature.replace_all_uses(node.name, made.name)


_MEANS = {
    aten.adaptive_avg_pool1d.default, aten.adaptive_avg_pool2d.default, aten.avg_pool1d.default, aten.avg_pool2d.default, aten.mean.dim,
    aten.mean.default, aten.upsample_bilinear2d.vec,
}  # fmt: skip
_KEEP = ("relu.", "relu_.", "max_pool", "flatten.", "view.", "reshape.", "permute.", "transpose.", "squeeze.", "unsqueeze.", "dropout.",
         "slice.", "select.", "contiguous.", "clone.", "upsample_nearest", "adaptive_max_pool")  # fmt: skip


def _levels(node: Any) -> Any:
    """Scale, zero point, range and type of the quantized tensor that `node` shows elements of, or None."""
    while str(node.target).startswith(tuple(f"aten.{name}" for name in _KEEP)):
        node = node.args[0]
    return node.args[1:6] if str(node.target) == "quantized_decomposed.dequantize_per_tensor.default" else None


# -- tensors ---------------------------------------------------------------------------------------------------------


def _rounded(x: Any, scale: float, zero_point: int, dtype: Any = torch.quint8) -> Any:
    """x on the levels of a quantized tensor."""
    ops, levels = torch.ops.quantized_decomposed, (float(scale), int(zero_point), *_RANGES[dtype])
    return ops.dequantize_per_tensor.default(ops.quantize_per_tensor.default(x, *levels), *levels)


class _Weights(nn.Module):
    """The real values of packed weights: integers with one scale for all or for each index of an axis, or numbers as they are."""

    def __init__(self, packed: Any) -> None:
        super().__init__()
        self.is_quantized = packed.is_quantized
        if not packed.is_quantized:
            self.register_buffer("values", packed.detach())
            return
        self.levels = _RANGES[packed.dtype]
        self.register_buffer("values", packed.int_repr())
        self.per_tensor = packed.qscheme() == torch.per_tensor_affine
        if self.per_tensor:
            self.scale, self.zero_point = packed.q_scale(), packed.q_zero_point()
        else:
            self.axis = packed.q_per_channel_axis()
            self.register_buffer("scale", packed.q_per_channel_scales().float().clone())
            self.register_buffer("zero_point", packed.q_per_channel_zero_points().clone())

    def forward(self) -> Any:
        ops = torch.ops.quantized_decomposed
        if not self.is_quantized:
            return self.values
        if self.per_tensor:
            return ops.dequantize_per_tensor.default(self.values, self.scale, self.zero_point, *self.levels)
        return ops.dequantize_per_channel.default(self.values, self.scale, self.zero_point, self.axis, *self.levels)


# -- modules ---------------------------------------------------------------------------------------------------------


class _Product(nn.Module):
    """A convolution or linear layer: function(x, weight, bias), an activation, and the levels of a result that is a quantized tensor."""

    def __init__(
        self, source: Any, function: Callable[..., Any], activation: Callable[..., Any] | None = None, *, running: bool = False
    ) -> None:
        """With `running`, x is quantized while running, and the result is no quantized tensor."""
        super().__init__()
        weight, bias = source._weight_bias()
        self.weight, self.bias = _Weights(weight), None if bias is None else nn.Parameter(bias.detach(), requires_grad=False)
        self.function, self.activation = function, activation
        self.levels = None if running else (source.scale, source.zero_point)
        self.rounds_input = running and weight.is_quantized

    def forward(self, x: Any) -> Any:
        if self.rounds_input:
            x = torch.ops.qcc.round_dynamic.default(x, "", 0.0)
        y = self.function(x, self.weight(), self.bias)
        y = y if self.activation is None else self.activation(y)
        return y if self.levels is None else _rounded(y, *self.levels)


def _convolution(source: Any) -> Callable[..., Any]:
    def compute(x: Any, weight: Any, bias: Any) -> Any:
        if source.padding_mode != "zeros":
            x = F.pad(x, _both_sides(source.padding), mode=source.padding_mode)
        padding = source.padding if source.padding_mode == "zeros" else 0
        return function(x, weight, bias, source.stride, padding, source.dilation, source.groups)

    function = (F.conv1d, F.conv2d, F.conv3d)[len(source.kernel_size) - 1]
    return compute


def _both_sides(padding: Sequence[int]) -> list[int]:
    """Padding of F.pad, which counts axes from the last."""
    return [size for size in reversed(padding) for _ in range(2)]


def _transposed(source: Any) -> Callable[..., Any]:
    function = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)[len(source.kernel_size) - 1]
    return lambda x, weight, bias: function(
        x, weight, bias, source.stride, source.padding, source.output_padding, source.groups, source.dilation
    )


class _Pointwise(nn.Module):
    """function(x) on the levels of a quantized tensor."""

    def __init__(self, function: Callable[..., Any], levels: Sequence[Any]) -> None:
        super().__init__()
        self.function, self.levels = function, levels

    def forward(self, x: Any) -> Any:
        return _rounded(self.function(x), *self.levels)


class _Functional(nn.Module):
    """Methods of QFunctional."""

    def __init__(self, source: Any) -> None:
        super().__init__()
        self.levels = (source.scale, source.zero_point)

    def add(self, x: Any, y: Any) -> Any:
        return _rounded(x + y, *self.levels)

    def add_relu(self, x: Any, y: Any) -> Any:
        return _rounded(torch.relu(x + y), *self.levels)

    def mul(self, x: Any, y: Any) -> Any:
        return _rounded(x * y, *self.levels)

    def matmul(self, x: Any, y: Any) -> Any:
        return _rounded(x @ y, *self.levels)

    def cat(self, x: Any, dim: int = 0) -> Any:
        return _rounded(torch.cat(x, dim), *self.levels)

    def add_scalar(self, x: Any, y: float) -> Any:
        return x + y

    def mul_scalar(self, x: Any, y: float) -> Any:
        return x * y


class _Embedding(nn.Module):
    """Rows of a table whose scales and zero points are floats: rows are scaled once they are chosen, and the table stays as it is."""

    scale: Any
    offset: Any

    def __init__(self, source: Any) -> None:
        super().__init__()
        packed = source.weight()
        self.levels = _RANGES[packed.dtype]
        values = packed.int_repr()
        if packed.dtype == torch.quint4x2:
            values = torch.stack([values & 15, values >> 4], -1).reshape(-1, source.embedding_dim)
        self.register_buffer("values", values)
        scale, zero_point = packed.q_per_channel_scales().float(), packed.q_per_channel_zero_points().float()
        self.register_buffer("scale", scale[:, None].clone())
        self.register_buffer("offset", (-zero_point * scale)[:, None])

    def forward(self, ids: Any) -> Any:
        table = torch.ops.quantized_decomposed.dequantize_per_tensor.default(self.values, 1.0, 0, *self.levels)
        return F.embedding(ids, table) * F.embedding(ids, self.scale) + F.embedding(ids, self.offset)


class _Bags(nn.Module):
    """Sums of rows."""

    table: Any

    def __init__(self, source: Any) -> None:
        super().__init__()
        self.register_buffer("table", source.weight().dequantize())
        self.include_last_offset = source.include_last_offset

    def forward(self, ids: Any, offsets: Any = None, per_sample_weights: Any = None, mapping: Any = None) -> Any:
        del mapping
        given = {"per_sample_weights": per_sample_weights, "include_last_offset": self.include_last_offset}
        return F.embedding_bag(ids, self.table, offsets, mode="sum", **given)


def _normalisation(source: Any, activation: Callable[..., Any] | None = None) -> Any:
    mean, variance, weight, bias = (v.detach() for v in (source.running_mean, source.running_var, source.weight, source.bias))

    def compute(x: Any) -> Any:
        y = F.batch_norm(x, mean, variance, weight, bias, eps=source.eps)
        return y if activation is None else activation(y)

    return _Pointwise(compute, (source.scale, source.zero_point))


def _recurrent(kind: Any, source: Any) -> Any:
    """The float layer of the weights that `source` holds."""
    made = kind(
        source.input_size, source.hidden_size, source.num_layers, source.bias, source.batch_first, bidirectional=source.bidirectional
    )
    return _with_weights(made, source)


def _cell(kind: Any, source: Any) -> Any:
    more = {"nonlinearity": source.nonlinearity} if kind is nn.RNNCell else {}
    return _with_weights(kind(source.input_size, source.hidden_size, source.bias, **more), source)


def _with_weights(made: Any, source: Any) -> Any:
    for name, value in {**source.get_weight(), **source.get_bias()}.items():
        real = value.dequantize() if value.is_quantized else value.detach().float()
        setattr(made, name, nn.Parameter(real, requires_grad=False))
    return made.eval()


_RULES: dict[type, Callable[[Any], Any]] = {
    static.Quantize: lambda m: _Pointwise(nn.Identity(), (float(m.scale), int(m.zero_point), m.dtype)),
    static.DeQuantize: lambda m: nn.Identity(),
    static.Dropout: lambda m: nn.Identity(),
    static.QFunctional: _Functional,
    static.Linear: lambda m: _Product(m, F.linear),
    intrinsic.LinearReLU: lambda m: _Product(m, F.linear, torch.relu),
    intrinsic.LinearTanh: lambda m: _Product(m, F.linear, torch.tanh),
    intrinsic.LinearLeakyReLU: lambda m: _Product(m, F.linear, lambda y: F.leaky_relu(y, m.negative_slope)),
    dynamic.Linear: lambda m: _Product(m, F.linear, running=True),
    intrinsic_dynamic.LinearReLU: lambda m: _Product(m, F.linear, torch.relu, running=True),
    **dict.fromkeys((static.Conv1d, static.Conv2d, static.Conv3d), lambda m: _Product(m, _convolution(m))),
    **dict.fromkeys((intrinsic.ConvReLU1d, intrinsic.ConvReLU2d, intrinsic.ConvReLU3d), lambda m: _Product(m, _convolution(m), torch.relu)),
    **dict.fromkeys((static.ConvTranspose1d, static.ConvTranspose2d, static.ConvTranspose3d), lambda m: _Product(m, _transposed(m))),
    **dict.fromkeys((static.BatchNorm2d, static.BatchNorm3d), _normalisation),
    **dict.fromkeys((intrinsic.BNReLU2d, intrinsic.BNReLU3d), lambda m: _normalisation(m, torch.relu)),
    static.Hardswish: lambda m: _Pointwise(F.hardswish, (m.scale, m.zero_point)),
    static.LeakyReLU: lambda m: _Pointwise(lambda x: F.leaky_relu(x, m.negative_slope), (m.scale, m.zero_point)),
    static.ELU: lambda m: _Pointwise(lambda x: F.elu(x, m.alpha), (m.scale, m.zero_point)),
    static.Sigmoid: lambda m: _Pointwise(torch.sigmoid, (m.output_scale, m.output_zero_point)),
    static.ReLU6: lambda m: nn.ReLU6(),
    static.LayerNorm: lambda m: _Pointwise(lambda x: F.layer_norm(x, m.normalized_shape, m.weight, m.bias, m.eps), (m.scale, m.zero_point)),
    static.Embedding: _Embedding,
    static.EmbeddingBag: _Bags,
    dynamic.LSTM: lambda m: _recurrent(nn.LSTM, m),
    dynamic.GRU: lambda m: _recurrent(nn.GRU, m),
    dynamic.LSTMCell: lambda m: _cell(nn.LSTMCell, m),
    dynamic.GRUCell: lambda m: _cell(nn.GRUCell, m),
    dynamic.RNNCell: lambda m: _cell(nn.RNNCell, m),
}


# -- FX graph mode ---------------------------------------------------------------------------------------------------


def _rewrite(module: Any) -> None:
    """Functions of quantized tensors that a converted graph calls, in floats."""
    for node in module.graph.nodes:
        name = str(node.target).removesuffix(".default")
        if node.op == "call_method" and node.target == "dequantize":
            node.op, node.target = "call_function", _same
        elif node.op == "call_function" and (rule := _FUNCTIONS.get(name if node.target is not torch.quantize_per_tensor else "quantize")):
            node.target, node.args = rule, map_arg(node.args, lambda a: _number(module, a))
            node.kwargs = map_arg(node.kwargs, lambda a: _number(module, a))
    module.graph.eliminate_dead_code()
    module.recompile()


def _number(module: Any, node: Any) -> Any:
    """The number that a scale or zero point of the graph is."""
    value: Any = module
    if node.op != "get_attr":
        return node
    for part in node.target.split("."):
        value = getattr(value, part)
    return value.item() if isinstance(value, torch.Tensor) and value.numel() == 1 else node


def _same(x: Any) -> Any:
    return x


def _then_rounded(function: Callable[..., Any]) -> Callable[..., Any]:
    """An operator of quantized tensors whose last arguments, or whose only ones by name, are the scale and zero point of its result."""

    def compute(*args: Any, **levels: Any) -> Any:
        given = [*args, *(value for name, value in levels.items() if name.endswith(("scale", "zero_point")))]
        return _rounded(function(*given[:-2]), *given[-2:])

    return compute


_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "quantize": _rounded,
    "quantized.add": _then_rounded(torch.add),
    "quantized.add_relu": _then_rounded(lambda x, y: torch.relu(x + y)),
    "quantized.mul": _then_rounded(torch.mul),
    "quantized.mul_relu": _then_rounded(lambda x, y: torch.relu(x * y)),
    "quantized.matmul": _then_rounded(torch.matmul),
    "quantized.hardswish": _then_rounded(F.hardswish),
    "quantized.leaky_relu": _then_rounded(F.leaky_relu),
    "quantized.sigmoid": _then_rounded(torch.sigmoid),
    "quantized.layer_norm": _then_rounded(F.layer_norm),
    "quantized.cat": lambda x, dim=0, scale=1.0, zero_point=0: _rounded(torch.cat(x, dim), scale, zero_point),
    "quantized.add_scalar": torch.add,
    "quantized.mul_scalar": torch.mul,
}
