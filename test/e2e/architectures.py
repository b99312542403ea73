"""Architectures of well-known libraries, with random seeded weights: do they compile, are they right, what takes the generic path?

    python -m test.e2e.architectures torchvision:resnet18 timm:ghostnet_100 transformers:bert
    python -m test.e2e.architectures --quantize torchvision:mobilenet_v3_small   # 8 bits by onnxruntime.quantization.quantize_static
    python -m test.e2e.architectures --all --write                               # `NAMES`, and ARCHITECTURES.md beside this file

Any name that the libraries know will do. They are no dependencies of qcc, and this is no part of its tests: install torchvision, timm,
transformers and onnxscript beside it.
Every architecture has a process of its own. Errors are relative, in the Euclidean norm, against torch in float; with --quantize, that of
ONNX Runtime on the same file stands beside it.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import logging
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

TABLE = Path(__file__).with_name("ARCHITECTURES.md")
SECONDS = 600
NAMES = (
    *(f"torchvision:{n}" for n in ("alexnet", "googlenet", "squeezenet1_1", "shufflenet_v2_x1_0", "mobilenet_v3_small", "mnasnet1_0",
                                   "efficientnet_b0", "regnet_y_400mf", "convnext_tiny", "swin_t", "vit_b_32")),
    *(f"timm:{n}" for n in ("ghostnet_100", "mobilevit_s", "levit_128", "mixer_s32_224", "repvgg_a0", "hrnet_w18_small", "fastvit_t8",
                            "edgenext_small", "poolformer_s12", "deit_tiny_patch16_224", "lcnet_050", "mobilenetv4_conv_small", "nfnet_l0",
                            "pvt_v2_b0", "coat_tiny", "xcit_nano_12_p16_224")),
    *(f"transformers:{n}" for n in ("bert", "distilbert", "roberta", "electra", "gpt2", "llama", "mistral", "qwen2", "qwen3", "gemma",
                                    "phi", "opt", "gpt_neox", "bloom", "mamba")),
)  # fmt: skip
SMALL = {
    "hidden_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 256,
    "vocab_size": 1000,
    "num_key_value_heads": 2,
}


def build(name: str) -> tuple[Any, tuple[Any, ...]]:
    """The module in evaluation mode and example inputs: one image, or 32 tokens for a small configuration of a language model."""
    import torch

    torch.manual_seed(0)
    library, model = name.split(":")
    if library == "torchvision":
        import torchvision

        return torchvision.models.get_model(model, weights=None).eval(), (torch.randn(1, 3, 224, 224),)
    if library == "timm":
        import timm

        module = timm.create_model(model, pretrained=False).eval()
        return module, (torch.randn(1, *module.default_cfg["input_size"]),)
    import transformers

    config = transformers.AutoConfig.for_model(model, **SMALL, use_cache=False, attn_implementation="eager")
    return transformers.AutoModel.from_config(config).eval(), (torch.randint(5, 990, (1, 32)),)


def quantized(module: Any, inputs: tuple[Any, ...], folder: Path) -> Path:
    """An ONNX file of the module with u8 activations and s8 weights per channel, calibrated with the inputs themselves."""
    import torch

    from test.e2e.models import quantize_onnx

    exported, prepared, path = (folder / f"{step}.onnx" for step in ("exported", "prepared", "quantized"))
    names = [f"x{i}" for i in range(len(inputs))]
    torch.onnx.export(module, inputs, exported, input_names=names, dynamo=True, opset_version=20, external_data=False)
    quantize_onnx(exported, prepared, path, [{name: x.numpy() for name, x in zip(names, inputs, strict=True)}])
    return path


def examine(name: str, quantize: bool) -> dict[str, Any]:
    """Compile, run and compare one architecture."""
    import torch

    import qcc

    module, inputs = build(name)
    arrays = [x.numpy() for x in inputs]
    with torch.no_grad():
        expected = _first(module(*inputs)).numpy().astype(np.float64)
    row: dict[str, Any] = {}

    def error(found: Any) -> float:
        return float(np.linalg.norm(np.asarray(found) - expected) / max(np.linalg.norm(expected), 1e-30))

    with tempfile.TemporaryDirectory() as folder:
        source: Any = module
        if quantize:
            import onnxruntime

            with contextlib.redirect_stdout(io.StringIO()):
                source = quantized(module, inputs, Path(folder))
            session = onnxruntime.InferenceSession(str(source), providers=["CPUExecutionProvider"])
            feed = {given.name: x for given, x in zip(session.get_inputs(), arrays, strict=True)}
            row["peer"] = error(session.run(None, feed)[0])
        start = time.monotonic()
        exe = qcc.compile(source, example_inputs=None if quantize else inputs, threads=1)
        row["seconds"] = time.monotonic() - start
    row["error"] = error(_first(exe(*arrays)))
    layers = exe.report["layers"]
    row["layers"], row["generic"] = len(layers), dict(Counter(layer["generic"] for layer in layers if layer["generic"]))
    return row


def _first(outputs: Any) -> Any:
    """The first tensor of what a model gives."""
    if hasattr(outputs, "to_tuple"):
        outputs = outputs.to_tuple()
    return outputs[0] if isinstance(outputs, tuple | list) else outputs


def in_process(name: str, quantize: bool) -> dict[str, Any]:
    """`examine` in a process of its own; a failure is a row with its last line."""
    command = [sys.executable, "-m", "test.e2e.architectures", name, "--json", *(["--quantize"] if quantize else [])]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
    except subprocess.TimeoutExpired:
        return {"failed": f"more than {SECONDS} s"}
    if done.returncode:
        return {"failed": (done.stderr.strip().splitlines() or [f"status {done.returncode}"])[-1]}
    return json.loads(done.stdout.strip().splitlines()[-1])


def line(name: str, quantize: bool, row: dict[str, Any]) -> str:
    """One row of the table."""
    cells = [name, "8 bits" if quantize else "f32"]
    if "failed" in row:
        return f"| {' | '.join([*cells, row['failed'], '', '', ''])} |"
    generic = "; ".join(f"{why.removesuffix(': no codelet')} ({count})" for why, count in row["generic"].items())
    error = f"{row['error']:.2g}" + (f" ({row['peer']:.2g})" if quantize else "")
    return f"| {' | '.join([*cells, error, str(row['layers']), generic or '-', format(row['seconds'], '.0f')])} |"


HEAD = """# Architectures of well-known libraries

Made by `python -m test.e2e.architectures`. Weights are random, so errors of quantized networks say how rounding spreads, not
what a trained network loses; in brackets, ONNX Runtime's error with the same file (without VNNI it saturates sums of two products).

| architecture | weights | error against torch in f32 | layers | generic path | seconds to compile |
|---|---|---|---|---|---|
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="LIBRARY:NAME")
    parser.add_argument("--all", action="store_true", help="every one of `NAMES`, in float and in 8 bits")
    parser.add_argument("--quantize", action="store_true", help="quantize to 8 bits first")
    parser.add_argument("--write", action="store_true", help=f"write {TABLE.name} too")
    parser.add_argument("--json", action="store_true", help="one architecture in this process, as JSON")
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    if arguments.json:
        print(json.dumps(examine(arguments.names[0], arguments.quantize)))
        return
    wanted = [(n, q) for q in (False, True) for n in NAMES] if arguments.all else [(n, arguments.quantize) for n in arguments.names]
    lines: list[str] = []
    for name, quantize in wanted:
        lines.append(line(name, quantize, in_process(name, quantize)))
        print(lines[-1], flush=True)
        if arguments.write:
            TABLE.write_text(HEAD + "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
