"""THE list of passes per target, each with its reason. Nothing else in qcc decides what runs when.

A stage's options may name in braces fields of `CompileOptions` and what the target's `stage_options` gives; `forms` fills them in.
"""

from __future__ import annotations

from dataclasses import asdict, replace

from qcc.compiler.options import CompileOptions
from qcc.compiler.targets.cpu import CpuTarget
from qcc.compiler.targets.fpga import FpgaTarget
from qcc.passes.base import Stage

# ONNX operators as torch-mlir imports them -> torch dialect; upstream's own conversion to the backend contract follows
ONNX: tuple[Stage, ...] = (
    Stage("convert-onnx-quantization", reason="upstream's conversion would lose widths other than 8 bits, blocks, and the integer types"),
)

# torch dialect (backend contract) or linalg-on-tensors -> graph form
IMPORT: tuple[Stage, ...] = (
    Stage("widen-half", reason="every codelet computes in f32, and so do processors that are given halves"),
    Stage("convert-torch-to-qcc", reason="whole layers become qcc operations while a softmax is still a softmax"),
    Stage("lower-torch-to-linalg", reason="what qcc has no operation for goes to linalg, and torch types become builtin"),
    Stage("separate-state", reason="what is kept from run to run is no input and no output; before their types change"),
    Stage("fold-storage-casts", reason="inputs and outputs that hold stored integers say so in their types"),
    Stage("outline-generic", reason="the generic path becomes private functions, so that the model is a straight line of ours"),
)

# graph form -> integer form
INTEGER: tuple[Stage, ...] = (
    Stage("convert-levels-to-affine", reason="binary, ternary and power-of-two weights multiply as integers like all others"),
    Stage("fold-constants", reason="weights must stand next to their layers before anything looks at them"),
    Stage("convert-matmul-to-linear", reason="one layout of weights, output channel first; leaves a transpose of the constant"),
    Stage("fold-constants", reason="performs the transposes of weights"),
    Stage("recognize-formats", reason="few levels are visible until a normalisation rounds every weight anew"),
    Stage("convert-levels-to-affine", reason="what was recognised multiplies as integers too"),
    Stage("fold-bias", reason="an addition of a constant is an initial value of the accumulator"),
    Stage("fold-batch-norm", reason="a normalisation is a scale and a bias of the layer before it"),
    Stage("fold-bias", reason="normalisations that found no layer may have left additions"),
    Stage("fold-gelu", reason="one function where exporters write five operations can stand behind a product"),
    Stage("fuse-attention", reason="a few queries read keys and values where they lie; what exporters write are products and a softmax"),
    Stage("merge-repeated-heads", reason="keys and values that query heads share are read once, not copied for each; they are views still"),
    Stage("quantize-signs", reason="signs that products read are exact in two bits; before quantize and dequantize move"),
    Stage("cse", reason="importers repeat constants and dequantizes, and patterns ask whether a value has one use"),
    Stage("fold-norms", reason="one pass over memory where exporters write five or nine"),
    Stage("propagate-quantization", reason="brings quantize and dequantize next to what computes"),
    Stage("cse", reason="a quantize that moved above a common operand is one"),
    Stage("convert-elementwise-to-lut", reason="before sums and products, so that those with one number become tables too"),
    Stage("fold-quantized-elementwise", reason="residual sums on stored integers"),
    Stage("fold-quantized-pooling", reason="means on stored integers"),
    Stage("fold-quantized-softmax", reason="attention between integer products stays in bytes"),
    Stage("fold-dynamic-qdq", reason="products of activations that are quantized while running; before fold-qdq looks at dequantize"),
    Stage("fold-qdq", reason="products between dequantized operands become exact integer products; the rest of quantize is rescaling"),
    Stage("cse", reason="integer biases and weights that layers share"),
    Stage("fold-padding", reason="zeros around images are read where they are, not copied; once quantize stands behind what pads"),
    Stage(
        "drop-zero-taps", "shift={codelets}", "shift layers and kernels pruned in rows multiply less; the accelerator skips zeros anyway"
    ),
    Stage("sink-movement", reason="reshapes of linear layers and split heads stand between products and what could be fused behind them"),
    Stage("lower-requantize-to-fixed", "enabled={fixed_point}", "the accelerator's post unit has no floats; the CPU keeps the f32 mode"),
    Stage("merge-constant-channels", reason="pruned channels that are constants in front of padding become a few; once rescaling is known"),
    Stage("remove-zero-channels", "granule=4", "pruned channels leave smaller layers; constants are known only once rescaling is"),
    Stage(
        "factor-low-rank",
        "isa={isa} activations={activations} byte-expand={byte_expand} optimize={optimize} enabled={low_rank_layers}",
        "a rank that was truncated is visible in float weights only, and smaller once zero channels are gone; before they are rounded",
    ),
    Stage(
        "round-products-to-bf16",
        "enabled={bf16_products}",
        "what is float still multiplies bfloat16 where the user asks for it; behind fold-qdq, which takes the quantized products",
    ),
    Stage("propagate-bitwidth", reason="accumulators get the width that the actual weights and activation ranges prove"),
    Stage(
        "select-sparse-format",
        "isa={isa} activations={activations} byte-expand={byte_expand} optimize={optimize} storage={storage}",
        "zeros are counted, and a storage form chosen by predicted time, before layouts hide them",
    ),
    Stage("record-activation-zeros", "zeros={zeros}", "what calibration data say of inputs stands where layers choose codelets"),
    Stage("keep-layer-outputs", "enabled={keep_layers}", "qcc-run --compare looks at every layer's output; off unless asked for"),
)

# integer form -> tiled form
TILE: tuple[Stage, ...] = (
    Stage("assign-layout", reason="channels innermost make reductions contiguous, borders remove bounds checks"),
    Stage("slice-batch", reason="a few images at a time stay in the cache from layer to layer; behind layouts, which borders depend on"),
    Stage(
        "lower-to-codelets",
        "isa={isa} activations={activations} byte-expand={byte_expand} popcount={popcount} coded={coded} streamed={streamed}"
        " storage={storage}",
        "one call per product and what is fused behind it",
    ),
    Stage("bufferize-generic-functions", reason="temporaries of the generic path become scratch buffers that are planned with the others"),
    Stage("plan-memory", reason="every buffer gets its place, so that a run allocates nothing"),
    Stage("retile-contractions", "tiles={tiles}", "tiles that autotuning measured; none unless asked for"),
)

# tiled form -> llvm dialect (CPU)
LLVM: tuple[Stage, ...] = (
    Stage("emit-step-table", "cpu-features={cpu_feature_mask}", "constant tables for the runtime; weights leave the code"),
    Stage("lower-generic-functions", reason="machine code for what has no codelet"),
    Stage("generate-codelets", reason="machine code for every distinct codelet configuration"),
    Stage("convert-scf-to-cf", reason="loops of codelets become branches"),
    Stage("convert-arith-to-llvm", reason="index arithmetic of codelets"),
    Stage("convert-cf-to-llvm", reason="branches of codelets"),
    Stage("reconcile-unrealized-casts", reason="casts between index and i64 that met in the middle"),
    Stage("internalize-functions", reason="only the step table reaches codelets; no wrappers of them are generated"),
    Stage("attach-target", "cpu={cpu} features={cpu_features}", "functions for another CPU than this one must say so"),
)

# integer form -> accelerator instruction stream
ISA: tuple[Stage, ...] = (
    Stage("partition-accelerator", reason="what the array and the post unit cannot do stays on the host CPU"),
    Stage("tile-for-accelerator", "{accelerator}", "layers cut to the buffers, weights packed as bit-planes without their zero words"),
    Stage("plan-accelerator-memory", reason="every tensor and weight block gets its DRAM address"),
    Stage("select-instructions", reason="loops of tiles become instructions with on-chip addresses"),
    Stage("schedule-tokens", reason="the units overlap as far as the data allow"),
)


def forms(options: CompileOptions) -> list[tuple[str, list[Stage]]]:
    """The forms of a target in order, each with the stages that lead to it from the one before."""
    target = {
        "cpu": [("graph", IMPORT), ("integer", INTEGER), ("tiled", TILE), ("llvm", LLVM)],
        "fpga": [("graph", IMPORT), ("integer", INTEGER), ("isa", ISA)],
    }[options.target]
    values = {name: str(value).lower() if isinstance(value, bool) else value for name, value in asdict(options).items()}
    values["bf16_products"] = str(options.float_precision == "bf16").lower()
    values["low_rank_layers"] = str(options.low_rank == "auto").lower()
    values["fixed_point"] = str(options.target == "fpga").lower()
    values["coded"] = str(options.weight_coding != "none").lower()
    values["streamed"] = str(options.weight_coding != "none" and options.decode == "stream").lower()
    values["codelets"] = str(options.target == "cpu").lower()
    if options.target == "cpu":
        values |= CpuTarget(options.cpu).stage_options()
    else:
        values |= {"isa": "", "byte_expand": "false"}  # no codelets
        values |= FpgaTarget(options.device).stage_options()
    return [(name, [replace(s, options=s.options.format(**values)) for s in stages]) for name, stages in target]
