"""What happens to an exported program before the FX importer sees it: functional form, static weights unwrapped, constants computed,
and quantization that is chosen at run time written out in plain operations.
"""

from __future__ import annotations

import copy
import operator
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.export.graph_signature import InputKind, InputSpec, TensorArgument
from torch.fx.node import map_arg

from qcc.compiler.frontend import torch_dynamic, torch_recurrent
from qcc.compiler.frontend.torch_decompositions import decompositions
from qcc.compiler.frontend.torch_nodes import arguments, block_sizes, is_in_place, is_open, meta_like, module_path
from qcc.compiler.frontend.torch_state import State, name_state, take_state
from qcc.dialects.errors import QccError

_LARGE = 1 << 20  # elements; a constant above this is computed at import only where it does not grow


def prepare(program: Any) -> tuple[Any, list[State]]:
    """The same program without in-place operations, tensor subclasses, and expressions of constants; and the state that it keeps, which
    are its last inputs and outputs."""
    program = _copy(program)  # the caller's own stays as it is
    _drop_assertions(program.graph)
    _observed(program)
    name_state(program)
    if _mutates(program) or _has_subclasses(program):
        program = _decomposed(program, {})  # becomes functional; no operation is taken apart
    _group_affine(program)
    torch_dynamic.recognise(program)
    program = _decomposed_unknown(program)
    torch_recurrent.unroll(program)
    _restore_batch_norm(program.graph)
    _round_bounds(program.graph)
    states = take_state(program)
    fold_constants(program)
    _widen_bytes(program)
    return program, states


def _drop_assertions(graph: Any) -> None:
    """What export asserted of types is true, but need not be of what decompositions make of them."""
    for node in [n for n in graph.nodes if str(n.target).startswith("aten._assert_tensor_metadata.")]:
        graph.erase_node(node)


def _observed(program: Any) -> None:
    """Fake quantization of modules that were prepared for training, whose observers are off, by the scales that they have."""
    graph, weights = program.graph, weight_values(program)
    for node in [n for n in graph.nodes if n.target is torch.ops.aten.fused_moving_avg_obs_fake_quant.default]:
        given = arguments(node)
        x, scale, zero = given["self"], given["scale"], given["zero_point"]
        observes, rounds = (bool(weights[given[name].name].item()) for name in ("observer_on", "fake_quant_on"))
        if observes:
            raise QccError(
                "an observer would change the scale in every run; call model.apply(torch.ao.quantization.disable_observer)",
                layer=module_path(node)[0],
            )
        limits = (given["quant_min"], given["quant_max"])
        with graph.inserting_before(node):
            if given["per_row_fake_quant"]:
                rule, how = torch.ops.aten.fake_quantize_per_channel_affine.default, (scale, zero, given["ch_axis"])
            else:
                rule, how = torch.ops.aten.fake_quantize_per_tensor_affine.default, tuple(weights[a.name].item() for a in (scale, zero))
            made = graph.call_function(rule, (x, *how, *limits)) if rounds else x
        if rounds:
            made.meta = dict(node.meta)
        node.replace_all_uses_with(made)
        graph.erase_node(node)


def _copy(program: Any) -> Any:
    """A program of its own graph and the same weights."""
    graph, nodes = torch.fx.Graph(), {}
    result, _ = graph.graph_copy(program.graph, nodes, return_output_node=True)  # pyright: ignore[reportGeneralTypeIssues]
    graph.output(result)
    for old, new in zip(program.graph.nodes, graph.nodes, strict=True):
        new.meta, new.name = dict(old.meta), old.name  # copying renames a node called `input`
    return torch.export.ExportedProgram(
        root=program.graph_module, graph=graph, graph_signature=copy.deepcopy(program.graph_signature), state_dict=program.state_dict,
        range_constraints=program.range_constraints, module_call_graph=program.module_call_graph,
        example_inputs=program.example_inputs, constants=dict(program.constants), verifiers=program.verifiers,
    )  # fmt: skip


def _decomposed_unknown(program: Any) -> Any:
    """`program` in operators that qcc or torch-mlir knows, as far as there is a rule for the others."""
    seen: set[Any] = set()
    while True:
        table = decompositions(program.graph) | _dynamic_table()
        found = {node.target for node in program.graph.nodes} & table.keys()
        if found <= seen:  # what a rule has seen and left is to stay
            return program
        program = _decomposed(program, table)
        seen |= table.keys()  # those of what others are made of, too


def _decomposed(program: Any, table: dict[Any, Callable[..., Any]]) -> Any:
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch.export deprecates what it uses itself
        try:
            return program.run_decompositions(table)
        except RuntimeError as error:
            raise QccError(f"torch cannot write the model in operators that qcc knows: {str(error).splitlines()[0]}") from None


def _mutates(program: Any) -> bool:
    """Whether the graph holds in-place operations; torch.export keeps those of the model's source."""
    return any(map(is_in_place, program.graph.nodes))


def _has_subclasses(program: Any) -> bool:
    """Whether a weight is a tensor subclass, as torchao's `quantize_` makes them."""
    return any(type(value) not in (torch.Tensor, torch.nn.Parameter) for value in program.state_dict.values())


def _restore_batch_norm(graph: Any) -> None:
    """Normalisation by running statistics as the operation that the torch dialect has for it."""
    aten = torch.ops.aten
    for node in graph.nodes:
        if node.target is aten._native_batch_norm_legit_no_training.default:
            x, scale, bias, mean, var, momentum, epsilon = node.args
            node.target = aten.native_batch_norm.default
            node.args = (x, scale, bias, mean, var, False, momentum, epsilon)
        elif node.target is aten.instance_norm.default and not node.args[5]:
            node.target = aten.batch_norm.default  # of the same arguments


def _widen_bytes(program: Any) -> None:
    """Arithmetic on integers of 8 bits as arithmetic on 32, of which 8 are kept.

    Some of torch-mlir's lowerings crash on 8 bits, and most take unsigned integers for signed ones.
    """
    for node in [
        n for n in program.graph.nodes if isinstance(n.target, torch._ops.OpOverload) and isinstance(n.meta.get("val"), torch.Tensor)
    ]:
        result, sources = node.meta["val"], [a for a in node.all_input_nodes if a.meta["val"].dtype in _BYTES]
        if str(node.target).startswith(("aten.to.", "aten._to_copy.")):
            source = node.all_input_nodes[0]
            if result.dtype == torch.uint8 and source.meta["val"].is_floating_point():
                node.replace_input_with(source, _converted(node, source, torch.int32))
        elif result.dtype == torch.int64 or torch.Tag.pointwise in node.target.tags or node.target is torch.ops.aten.floor_divide.default:
            for source in sources:
                if not result.is_floating_point() or source.meta["val"].dtype == torch.uint8:
                    node.replace_input_with(source, _converted(node, source, torch.int32))
            if sources and result.dtype in _BYTES:
                node.meta = meta_like(node, result.to(torch.int32))
                narrow = _converted(node.next, node, result.dtype)
                node.replace_all_uses_with(narrow, delete_user_cb=lambda user, narrow=narrow: user is not narrow)
                program.graph_signature.replace_all_uses(node.name, narrow.name)


_BYTES = (torch.int8, torch.uint8)


def _converted(before: Any, source: Any, dtype: Any) -> Any:
    """`source` as `dtype`, computed in front of `before`."""
    with before.graph.inserting_before(before):
        made = before.graph.call_function(torch.ops.aten.to.dtype, (source, dtype))
    made.meta = meta_like(source, source.meta["val"].to(dtype))
    return made


def _round_bounds(graph: Any) -> None:
    """A number that an f32 is compared with becomes an f32, as torch compares; torch-mlir would compare both as f64."""
    for node in graph.nodes:
        if str(node.target) in _COMPARISONS and node.args[0].meta["val"].dtype == torch.float32:
            node.args = tuple(torch.tensor(a).item() if isinstance(a, float) else a for a in node.args)


_COMPARISONS = {f"aten.{name}.Scalar" for name in ("gt", "ge", "lt", "le", "eq", "ne")} | {
    "aten.threshold.default",
    "aten.hardshrink.default",
}


# -- constants -------------------------------------------------------------------------------------------------------


def weight_values(program: Any) -> dict[str, Any]:
    """Tensor per placeholder name, for the parameters, buffers and constants of `program`."""
    signature = program.graph_signature
    names = {**signature.inputs_to_parameters, **signature.inputs_to_buffers, **signature.inputs_to_lifted_tensor_constants}
    stores = (program.state_dict, program.constants)
    return {name: store[target] for name, target in names.items() for store in stores if target in store}


def fold_constants(program: Any) -> None:
    """Compute now what depends on no input: masks, position indices, transposed or normalised weights.

    Quantization is kept, with the integers it starts from: `quantize`, `dequantize` and the widening of 8-bit integers stay.
    """
    graph, stored = program.graph, weight_values(program)
    values: dict[Any, Any] = {n: stored[n.name] for n in graph.nodes if n.op == "placeholder" and n.name in stored}
    computed: dict[Any, Any] = {}
    for node in graph.nodes:
        if node.op == "call_function" and _is_foldable(node, values):
            args, kwargs = map_arg(
                (node.args, node.kwargs),
                lambda a: values[a] if a in values else torch.empty(a.meta["val"].shape, dtype=a.meta["val"].dtype),
            )
            with torch.no_grad():
                values[node] = computed[node] = node.target(*args, **kwargs)
    first = next(iter(graph.nodes))
    for node, value in computed.items():
        if not isinstance(value, torch.Tensor):
            continue
        users = [user for user in node.users if user not in computed]
        if users:
            with graph.inserting_before(first):
                constant = graph.placeholder(f"qcc_{node.name}")
            constant.meta = dict(node.meta)
            argument = TensorArgument(name=constant.name)
            spec = InputSpec(InputKind.BUFFER, argument, target=_constant_name(node, stored), persistent=False)
            program.graph_signature.input_specs.append(spec)
            program.constants[spec.target] = value.detach().clone()
            for user in users:
                user.replace_input_with(node, constant)
    for node in reversed(computed):
        if not node.users:
            graph.erase_node(node)


def _constant_name(node: Any, stored: dict[str, Any]) -> str:
    """A name for what `node` computes: that of the one weight it is made from, if there is one."""
    waiting, seen = [node], {node}
    while waiting:
        new = set(waiting.pop().all_input_nodes) - seen
        seen |= new
        waiting += [a for a in new if a.name not in stored]
    weights = [a.name for a in seen if a.name in stored]
    source = f"{weights[0].removeprefix('p_').removeprefix('b_')}." if len(weights) == 1 else ""
    return f"{source}{node.name}"


def _is_foldable(node: Any, values: dict[Any, Any]) -> bool:
    target, result, inputs = node.target, node.meta.get("val"), node.all_input_nodes
    if any(user.op == "output" for user in node.users):
        return False
    if target is operator.getitem:
        return inputs[0] in values
    if not isinstance(target, torch._ops.OpOverload) or torch.Tag.nondeterministic_seeded in target.tags or "quant" in str(target):
        return False
    results = list(result) if isinstance(result, tuple | list) else [result]
    if not all(isinstance(r, torch.Tensor) and not is_open(r) for r in results) or (
        len(results) > 1 and any(u.target is not operator.getitem for u in node.users)
    ):
        return False
    if target in _OF_SHAPE:
        inputs = []
    if not all(a in values for a in inputs):
        return False
    small_integers = any(values[a].dtype in (torch.int8, torch.uint8) for a in inputs)
    if small_integers and any(r.is_floating_point() for r in results):
        return False
    return sum(r.numel() for r in results) <= max(_LARGE, 2 * sum(values[a].numel() for a in inputs))


# What these compute depends on the shape and dtype of their first operand only.
_OF_SHAPE = {
    getattr(torch.ops.aten, name).default
    for name in ("new_zeros", "new_ones", "new_full", "new_empty", "zeros_like", "ones_like", "full_like")
}


# -- quantization ----------------------------------------------------------------------------------------------------


def _group_affine(program: Any) -> None:
    """`torchao.dequantize_affine` of stored weights becomes the `quantized_decomposed` operation of its granularity."""
    weights = weight_values(program)
    graph, ops = program.graph, torch.ops.quantized_decomposed
    for node in [n for n in graph.nodes if str(n.target) == "torchao.dequantize_affine.default"]:
        given = arguments(node)
        x = given["input"]
        if x.name not in weights or (given["zero_point"] is not None and given["zero_point"].name not in weights):
            continue
        shape, block = list(x.meta["val"].shape), block_sizes(given["block_size"], x.meta["val"].shape)
        counts = [n // b for n, b in zip(shape, block, strict=True)]
        split = [axis for axis, count in enumerate(counts) if count > 1]
        limits = [int(given["quant_min"]), int(given["quant_max"])]
        with graph.inserting_before(node):
            if len(split) <= 1 and all(block[axis] == 1 for axis in split):
                scale, zero = (_reshaped(graph, given[key], [-1]) for key in ("scale", "zero_point"))
                args = (x, scale, zero, split[0] if split else 0, *limits, given["input_dtype"])
                made = graph.call_function(ops.dequantize_per_channel.default, args) if split else None
            elif len(shape) == 2 and block[0] == 1:
                scale, zero = (_reshaped(graph, given[key], counts) for key in ("scale", "zero_point"))
                args = (x, scale, zero, *limits, given["input_dtype"], block[1], given["output_dtype"])
                made = graph.call_function(ops.dequantize_per_channel_group.default, args)
            else:
                made = None
        if made is not None:
            made.meta = dict(node.meta)
            node.replace_all_uses_with(made)
            graph.erase_node(node)
    graph.eliminate_dead_code()


def _reshaped(graph: Any, node: Any, shape: list[int]) -> Any:
    if node is None:
        return None
    made = graph.call_function(torch.ops.aten.view.default, (node, shape))
    made.meta = meta_like(node, node.meta["val"].view(shape))
    return made


def _range(low: Any, high: Any, qmin: int, qmax: int, eps: float, *, symmetric: bool) -> tuple[Any, Any]:
    """Scale and zero point of real values from `low` to `high`, zero included."""
    low, high = torch.clamp(low, max=0.0), torch.clamp(high, min=0.0)
    if symmetric:
        scale = torch.clamp(torch.maximum(-low, high) / ((qmax - qmin) / 2), min=eps)
        return scale, torch.zeros_like(scale)
    scale = torch.clamp((high - low) / float(qmax - qmin), min=eps)
    return scale, torch.clamp(qmin - torch.round(low / scale), qmin, qmax)


def _choose(x: Any, qmin: int, qmax: int, eps: float, dtype: Any) -> tuple[Any, Any]:
    del dtype
    return _range(x.amin(), x.amax(), qmin, qmax, eps, symmetric=False)


def _choose_symmetric(x: Any, qmin: int, qmax: int, eps: float, dtype: Any) -> tuple[Any, Any]:
    del dtype
    return _range(x.amin(), x.amax(), qmin, qmax, eps, symmetric=True)


def _quantize(x: Any, scale: Any, zero: Any, qmin: int, qmax: int, dtype: Any) -> Any:
    return torch.clamp(torch.round(x * (1.0 / scale)) + zero, qmin, qmax).to(dtype)


def _dequantize(x: Any, scale: Any, zero: Any, qmin: int, qmax: int, dtype: Any, *, out_dtype: Any = None) -> Any:
    del qmin, qmax, dtype
    return (x.to(out_dtype or torch.float32) - zero) * scale


def _blocked(x: Any, block: Sequence[int]) -> tuple[Any, list[int]]:
    """`x` with every axis split into blocks and elements, and the shape that broadcasts one value per block."""
    sizes = block_sizes(block, x.shape)
    split = [n for size, b in zip(x.shape, sizes, strict=True) for n in (size // b, b)]
    return x.reshape(split), [n for size, b in zip(x.shape, sizes, strict=True) for n in (size // b, 1)]


def _choose_affine(
    x: Any, mapping: str, block: Sequence[int], dtype: Any, qmin: Any = None, qmax: Any = None, eps: Any = None, scale_dtype: Any = None,
    zero_dtype: Any = None, keepdim: bool = False,
) -> tuple[Any, Any]:  # fmt: skip
    del scale_dtype, zero_dtype, keepdim
    limits = torch.iinfo(dtype)
    qmin, qmax = limits.min if qmin is None else qmin, limits.max if qmax is None else qmax
    parts = _blocked(x, block)[0]
    axes = list(range(1, parts.dim(), 2))
    eps = torch.finfo(torch.float32).eps if eps is None else eps
    return _range(parts.amin(axes), parts.amax(axes), int(qmin), int(qmax), eps, symmetric=mapping != "ASYMMETRIC")


def _quantize_affine(x: Any, block: Sequence[int], scale: Any, zero: Any, dtype: Any, qmin: Any = None, qmax: Any = None) -> Any:
    limits = torch.iinfo(dtype)
    qmin, qmax = limits.min if qmin is None else qmin, limits.max if qmax is None else qmax
    parts, shape = _blocked(x, block)
    offset = 0 if zero is None else zero.reshape(shape)
    return torch.clamp(torch.round(parts * (1.0 / scale.reshape(shape))) + offset, qmin, qmax).to(dtype).reshape(x.shape)


def _dequantize_affine(
    x: Any, block: Sequence[int], scale: Any, zero: Any, dtype: Any, qmin: Any = None, qmax: Any = None, output_dtype: Any = torch.float32
) -> Any:
    del dtype, qmin, qmax
    parts, shape = _blocked(x, block)
    offset = 0 if zero is None else zero.reshape(shape)
    return ((parts.to(output_dtype) - offset) * scale.reshape(shape)).reshape(x.shape)


def _dynamic_table() -> dict[Any, Callable[..., Any]]:
    """Operations whose scale is computed at run time, as plain arithmetic; qcc has no word for such a type yet."""
    import torch.ao.quantization.fx._decomposed as registered

    ops = torch.ops.quantized_decomposed
    table: dict[Any, Callable[..., Any]] = {
        ops.choose_qparams.tensor: _choose,
        ops.choose_qparams_symmetric.tensor: _choose_symmetric,
        ops.quantize_per_tensor.tensor: _quantize,
        ops.dequantize_per_tensor.tensor: _dequantize,
        ops.choose_qparams_per_token.default: registered.choose_qparams_per_token,
        ops.choose_qparams_per_token_asymmetric.default: registered.choose_qparams_per_token_asymmetric,
        ops.quantize_per_token.default: registered.quantize_per_token,
        ops.dequantize_per_token.default: registered.dequantize_per_token,
    }
    if "torchao" in sys.modules:
        affine = torch.ops.torchao
        table[affine.choose_qparams_affine.default] = _choose_affine
        table[affine.quantize_affine.default] = _quantize_affine
        table[affine.dequantize_affine.default] = _dequantize_affine
    return table
