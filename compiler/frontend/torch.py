"""PyTorch: `torch.nn.Module`, `ExportedProgram`, TorchScript, `.pt2` and `.pt` files through torch-mlir's FX importer.

Weights go from torch's memory to MLIR resources without a copy through text, and every operation carries the name of its
layer (the path of its `nn.Module`, such as `body.0.c1`) as an MLIR name location.
"""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import re
import sys
import warnings
from collections import Counter
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode
from torch_mlir.extras.fx_importer import ContextCache, FxImporter, FxImporterHooks

from qcc.compiler.frontend import torch_dynamic, torch_eager, torch_state
from qcc.compiler.frontend.contract import to_backend_contract
from qcc.compiler.frontend.model import ImportedModel, imported
from qcc.compiler.frontend.torch_nodes import arguments, is_open, module_path
from qcc.compiler.frontend.torch_program import prepare, weight_values
from qcc.dialects import weights
from qcc.dialects.errors import QccError
from qcc.dialects.mlir import create_context, ir


def import_file(path: Path, example_inputs: Sequence[Any] | None = None, batch: int = 1) -> ImportedModel:
    """Import a `.pt2` file written by `torch.export.save`, or a `.pt` file of TorchScript."""
    try:
        program = _load(path) if path.suffix == ".pt2" else torch.jit.load(str(path), map_location="cpu").eval()
    except Exception as error:  # torch raises whatever its zip and JSON readers meet
        what = "a .pt2 file" if path.suffix == ".pt2" else "TorchScript (weights alone are no model)"
        raise QccError(f"'{path}' cannot be read as {what}: {_first_line(error)}; write it with torch.export.save") from None
    return import_model(program, example_inputs, batch)


def import_model(model: Any, example_inputs: Sequence[Any] | None = None, batch: int = 1) -> ImportedModel:
    """Import a `torch.nn.Module` (with example inputs) or an `ExportedProgram`, whose open first axes get size `batch`."""
    program = _export(model, example_inputs, batch)
    _check_static(program)
    _check_values(program)
    program, states = prepare(program)
    _drop_constant_results(program)
    _check_interface(program)
    context = create_context()
    importer = FxImporter(context=context, hooks=_Weights())
    importer._cc = _NamedLocations(context, program.graph)  # the importer offers no argument for it
    try:
        importer.import_program(program, func_name="main")
    except (NotImplementedError, AssertionError, TypeError, ValueError, KeyError, RuntimeError) as error:
        raise QccError(f"torch-mlir's FX importer cannot take this model: {_first_line(error)}") from None
    torch_dynamic.to_qcc(importer.module)
    to_backend_contract(importer.module)
    inputs, outputs = _interface_names(program, states)
    found = imported(importer.module, inputs, outputs)
    with context:
        torch_state.on_function(found.main, states)
    return found


def _load(path: Path) -> Any:
    """The program in a file; operators of torchao exist only once it is imported."""
    import torch.ao.quantization.fx._decomposed as registered

    del registered
    # A first attempt that fails is no news to the user, but torch logs it with its traceback and torchao every library it cannot load.
    for noisy in ("torch.export", "torch.utils._pytree", "torchao"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    try:
        return torch.export.load(str(path))
    except Exception:
        if importlib.util.find_spec("torchao") is None or "torchao" in sys.modules:
            raise
        importlib.import_module("torchao.quantization")
        return torch.export.load(str(path))


def _export(model: Any, example_inputs: Sequence[Any] | None, batch: int) -> Any:
    inputs = None if example_inputs is None else tuple(_as_tensor(x) for x in example_inputs)
    has_open = isinstance(model, torch.export.ExportedProgram) and bool(_dynamic_axes(model))
    if batch != 1 and not has_open:
        raise QccError(f"batch is {batch} but no input of the model has a dynamic first axis; leave it out, or export the model with one")
    if isinstance(model, torch.export.ExportedProgram):
        if not has_open:
            return model
        inputs = inputs or _batched_inputs(model, batch)
        model = model.module()
    if not isinstance(model, torch.nn.Module):
        raise QccError(
            f"found a {type(model).__name__}, expected a torch.nn.Module, a torch.export.ExportedProgram, an onnx.ModelProto or a path"
        )
    if inputs is None:
        raise QccError("a torch.nn.Module has no input shapes of its own; pass example_inputs=(x, ...), or --input X.npy to qcc")
    if getattr(model, "training", False) and not isinstance(model, torch.fx.GraphModule):  # frozen TorchScript has no such mode
        raise QccError("the model is in training mode, expected evaluation mode; call model.eval() first")
    traced = torch_eager.as_floats(model)
    try:
        with torch.no_grad(), _quiet():
            if isinstance(model, torch.jit.ScriptModule):
                from torch._export.converter import TS2EPConverter  # a second of processor time, for these models only

                return _export(TS2EPConverter(model, inputs).convert(), inputs, batch)  # leaves axes open
            program = torch.export.export(traced, inputs, strict=False)
            if traced is not model:
                torch_eager.round_means(program)
            return program
    except GuardOnDataDependentSymNode:
        raise QccError(
            "torch.export cannot trace the model: forward decides by the value of a tensor; decide by shapes or by arguments that are "
            "no tensors, or choose with torch.where"
        ) from None
    except Exception as error:  # tracing runs the user's own forward, which may raise anything
        raise QccError(f"torch.export cannot trace the model: {type(error).__name__}: {_first_line(error)}") from error


@contextlib.contextmanager
def _quiet() -> Generator[None]:
    """What torch logs and prints of a failure is in the error too, and it deprecates what it uses itself."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(None), contextlib.redirect_stderr(None):
            warnings.simplefilter("ignore", FutureWarning)
            warnings.filterwarnings("ignore", r"The tensor attributes? .*_flat_weights", UserWarning)  # of recurrent layers, their own
            yield
    finally:
        logging.disable(before)


def _batched_inputs(program: Any, batch: int) -> tuple[Any, ...]:
    """Inputs of the program's shapes with `batch` in place of an open first axis; other open axes stay for `_check_static` to name."""
    named = set(program.graph_signature.user_inputs)
    inputs: list[Any] = []
    for node in program.graph.nodes:
        if node.op == "placeholder" and node.name in named:
            value = node.meta["val"]
            sizes = [batch if axis == 0 and isinstance(n, torch.SymInt) else n for axis, n in enumerate(value.shape)]
            for axis, size in enumerate(sizes):
                if isinstance(size, torch.SymInt):
                    raise _dynamic(node.name, axis)
            inputs.append(torch.zeros([int(n) for n in sizes], dtype=value.dtype))
    return tuple(inputs)


def _as_tensor(value: Any) -> Any:
    return torch.from_numpy(np.ascontiguousarray(value)) if isinstance(value, np.ndarray) else value


def _first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def _dynamic_axes(program: Any) -> list[tuple[str, int]]:
    found: list[tuple[str, int]] = []
    for node in program.graph.nodes:
        value = node.meta.get("val")
        if node.op == "placeholder" and isinstance(value, torch.Tensor):
            found += [(node.name, axis) for axis, size in enumerate(value.shape) if isinstance(size, torch.SymInt)]
    return found


def _check_static(program: Any) -> None:
    for name, axis in _dynamic_axes(program):
        raise _dynamic(name, axis)


def _check_values(program: Any) -> None:
    """Raises QccError for numbers that are read out of tensors, random ones, and results that are no tensors."""
    names = layer_names(program.graph)
    for node in program.graph.nodes:
        if node.op == "output" and not any(isinstance(a, torch.fx.Node) for a in node.args[0]):
            raise QccError(f"the model returns {', '.join(map(repr, node.args[0])) or 'nothing'}, expected at least one tensor")
        if node.op != "call_function" or not isinstance(node.target, torch._ops.OpOverload):
            continue
        if str(node.target).startswith(("aten.item.", "aten._local_scalar_dense.")) and node.users:
            raise QccError(
                "found a number that is read out of a tensor while running, expected arithmetic on tensors; leave .item() out, "
                "or make the number an argument of the module",
                layer=names[node.name],
            )
        given = arguments(node)
        switches = [given[name] for name in ("train", "training", "dropout_p") if name in given]
        if torch.Tag.nondeterministic_seeded in node.target.tags and (not switches or any(switches)):
            raise QccError(
                f"{node.target} draws random numbers, expected a model that does not; turn dropout off in evaluation, "
                "or make the numbers an input",
                layer=names[node.name],
            )


def _drop_constant_results(program: Any) -> None:
    """What a model returns beside tensors, such as the None of attention without weights, is known before it runs: it is no output."""
    output = next(node for node in program.graph.nodes if node.op == "output")
    kept = [isinstance(value, torch.fx.Node) for value in output.args[0]]
    specs = program.graph_signature.output_specs
    specs[:] = [spec for spec, keep in zip(specs, kept, strict=True) if keep]
    output.args = (tuple(value for value in output.args[0] if isinstance(value, torch.fx.Node)),)


def _check_interface(program: Any) -> None:
    """Raises QccError for what neither the importer nor an artefact can take: open sizes, results without elements, complex numbers."""
    for node in program.graph.nodes:
        value = node.meta.get("val")
        if isinstance(value, torch.Tensor) and is_open(value):
            shape = ", ".join(str(size) for size in value.shape)
            raise QccError(
                f"found a result of shape [{shape}], which depends on the data, expected fixed sizes; keep all elements, masked",
                layer=layer_names(program.graph)[node.name],
            )
        if node.op == "output":
            for value in (a for a in node.args[0] if isinstance(a, torch.fx.Node) and a.meta["val"].numel() == 0):
                raise QccError(f"output '{value.name}' has shape {list(value.meta['val'].shape)}, expected at least one element")
        elif any(isinstance(a, complex) for a in node.args):
            raise QccError("found a complex number, expected real ones; compute with torch.view_as_real", layer=node.name)
    for name, value in weight_values(program).items():
        if value.is_complex():
            raise QccError(f"constant '{name}' is complex, expected real numbers; compute with torch.view_as_real")


def _dynamic(name: str, axis: int) -> QccError:
    return QccError(f"input '{name}' has a dynamic size at axis {axis}, expected a fixed one; pass example_inputs")


def _interface_names(program: Any, states: Sequence[torch_state.State]) -> tuple[list[str], list[str]]:
    """Names of the tensors that go in and out, state last; a model that returns a dict names its outputs itself."""
    signature = program.graph_signature
    count = len(signature.user_outputs) - len(states)
    spec = program.call_spec.out_spec
    keys = getattr(spec, "context", None)
    named = isinstance(keys, list) and len(keys) == count and all(isinstance(key, str) for key in keys)
    outputs = list(keys) if named and keys else ["output"] if count == 1 else [f"output_{i}" for i in range(count)]
    return [str(name) for name in signature.user_inputs], [*outputs, *(f"{state.name} (kept)" for state in states)]


class _Weights(FxImporterHooks):
    """Parameters, buffers and lifted constants become resources that `dialects/weights.py` can read back."""

    def resolve_input(self, gni: Any, value: Any, info: Any) -> Any:
        if isinstance(value, torch.Tensor) and value.dtype != torch.bool:
            return _literal(gni, value, re.sub(r"parametrizations\.(\w+)\.original(\d)", r"\1.\2", str(info.input_spec.target)))
        return None

    def resolve_literal(self, gni: Any, literal: Any, info: Any) -> Any:
        if isinstance(literal, torch.Tensor) and literal.dtype != torch.bool:
            return _literal(gni, literal, "constant")
        return None


def _literal(gni: Any, tensor: Any, name: str) -> Any:
    """`torch.vtensor.literal` of `tensor`, located at the parameter's own name."""
    kind = gni._cc.tensor_to_vtensor_type(tensor)
    element = gni._cc.dtype_to_type(tensor.dtype)
    location = ir.Location.name(name, context=gni._cc._c)
    value = weights.constant_attribute(_as_array(tensor), name, element)
    return ir.Operation.create("torch.vtensor.literal", results=[kind], attributes={"value": value}, loc=location).result


def _as_array(tensor: Any) -> np.ndarray:
    tensor = tensor.detach().cpu().contiguous()
    if tensor.dtype in _AS_BYTES:
        import ml_dtypes

        storage, name = _AS_BYTES[tensor.dtype]
        return tensor.view(storage).numpy().view(getattr(ml_dtypes, name))
    return tensor.numpy()


# numpy has no word for these, so their bits travel as integers.
_AS_BYTES = {
    torch.bfloat16: (torch.int16, "bfloat16"),
    torch.float8_e4m3fn: (torch.uint8, "float8_e4m3fn"),
    torch.float8_e5m2: (torch.uint8, "float8_e5m2"),
}


class _NamedLocations(ContextCache):
    """Locations that begin with the layer's name: `loc("body.0.c1"("model.py":12:0))`."""

    __slots__ = ["_names"]

    def __init__(self, context: ir.Context, graph: Any) -> None:
        super().__init__(context)
        self._names = layer_names(graph)

    def get_node_location(self, node: Any) -> Any:
        source = super().get_node_location(node) or ir.Location.unknown(context=self._c)
        name = self._names.get(node.name)
        return ir.Location.name(name, source, context=self._c) if name else source


def layer_names(graph: Any) -> dict[str, str]:
    """Layer name per FX node: the module's path where the module is one operation, else that path and the node's name.

    Quantization nodes, which no module owns, are named after the layer whose output or weight they quantize.
    """
    calls = [node for node in graph.nodes if node.op == "call_function" and "getitem" not in str(node.target)]
    compute = [node for node in calls if not _is_quantization(node)]
    sizes = Counter(path for node in compute if (path := module_path(node)[0]))
    stems = Counter((module_path(node)[0], _stem(node)) for node in compute)
    names: dict[str, str] = {}
    for node in compute:
        path, leaf = module_path(node)
        own = _stem(node) if stems[path, _stem(node)] == 1 else node.name
        names[node.name] = path if path and leaf and sizes[path] == 1 else f"{path}.{own}" if path else own
    for node in graph.nodes:
        if node.name in names or node.op == "output":
            continue
        source = next((a for a in node.args if isinstance(a, torch.fx.Node)), None) if node.op == "call_function" else None
        if source is not None and source.name in names:
            names[node.name] = names[source.name]
    for node in reversed(list(graph.nodes)):
        if node.op == "call_function" and node.name not in names:
            user = next((u for u in node.users if u.name in names), None)
            names[node.name] = names[user.name] if user is not None else node.name
    return names


def _stem(node: Any) -> str:
    """The node's name without the number that FX appends."""
    return re.sub(r"_\d+$", "", node.name)


def _is_quantization(node: Any) -> bool:
    return any(word in str(node.target) for word in ("quantize_", "quantized_decomposed", "choose_qparams"))
