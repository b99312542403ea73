"""qcc: compile a quantized, pruned, clustered or factorised model."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from qcc.compiler.options import (
    ACTIVATIONS,
    CODINGS,
    DECODES,
    FLOAT_PRECISIONS,
    FORMS,
    LOW_RANK,
    OPTIMIZE,
    STORAGE,
    TARGETS,
    CompileOptions,
)
from qcc.dialects.errors import QccError
from qcc.tools.entry import Parser, guarded, read_array

EPILOG = """\
examples:
  qcc model.onnx -o model.so                     compile for this machine's CPU: a shared object with a C interface, and model.h
  qcc model.pt2 -o model.so --cpu x86-64-v3      for any x86 CPU with AVX2
  qcc model.mlir -o model.qfa --target fpga --device ecp5-85k
  qcc model.onnx --emit integer -o model.mlir    stop at a form: graph, integer, tiled, llvm, asm, object, isa
  qcc-run model.so --input x.npy --output y.npy  run what came out

exit status: 0 done, 1 the model or an option is not acceptable, 2 a bug in qcc (a reproducer is saved and named)
"""


def main(argv: list[str] | None = None) -> int:
    args = parser().parse_args(argv)
    return guarded("qcc", lambda: _compile(args))


def parser() -> argparse.ArgumentParser:
    p = Parser(prog="qcc", description=__doc__, epilog=EPILOG)
    p.add_argument("model", help=".mlir (torch dialect, linalg, or a form of qcc's), .onnx, .pt2, or .pt (TorchScript) file")
    p.add_argument("-o", "--output", required=True, help="where the artefact (or the form of --emit) goes; - prints a form")
    p.add_argument("--target", choices=TARGETS, default="cpu", help="what the artefact runs on (default: cpu)")
    p.add_argument("--cpu", default="native", help="CPU: native (default), x86-64-v3, icelake-server, sapphirerapids, ...")
    p.add_argument("--device", help="accelerator preset for --target fpga (default: ecp5-85k)")
    p.add_argument("--batch", type=int, default=1, help="size of a first axis that the model leaves open (default: 1)")
    p.add_argument(
        "--input", action="append", default=[], metavar="X.npy", help="example input, one per model input, where shapes are open"
    )
    p.add_argument("--optimize", choices=OPTIMIZE, default="time", help="what layer formats are chosen by (default: time)")
    p.add_argument("--storage", choices=STORAGE, default="auto", help="of weights with zeros, wherever there is a codelet (default: auto)")
    p.add_argument("--coding", choices=CODINGS, help="entropy coding of stored weights (default: none, or auto under --optimize size)")
    p.add_argument(
        "--decode",
        choices=DECODES,
        default="load",
        help="coded weights are decoded when loading, or in every run, a few MB at a time (stream)",
    )
    p.add_argument(
        "--activations",
        choices=ACTIVATIONS,
        default="auto",
        help="input of weight-only layers: float, or quantized in the call (default: auto)",
    )
    p.add_argument(
        "--float-precision", choices=FLOAT_PRECISIONS, default="f32", help="what float layers multiply; sums are f32 (default: f32)"
    )
    p.add_argument(
        "--low-rank", choices=LOW_RANK, default="auto", help="split float layers of low rank in two where that pays (default: auto)"
    )
    p.add_argument(
        "--calibration", metavar="X.npz", help="samples of the inputs, by name: zeros in activations are measured, shown, and skipped"
    )
    p.add_argument(
        "--machine", default="", metavar="FILE", help="predict times with this description (default: qcc-bench machine's, if any)"
    )
    p.add_argument("--autotune", action="store_true", help="measure the best register tiles on this machine; answers are kept")
    p.add_argument("--emit", choices=FORMS, help="stop at this form and write it instead of the artefact")
    p.add_argument("--keep-layers", action="store_true", help="keep every layer's output, so that qcc-run --compare can look at it")
    p.add_argument("--dump-forms", metavar="DIR", help="write each form into DIR")
    p.add_argument("--report", metavar="FILE", help="write what was chosen per layer, as .html or .json")
    p.add_argument("--accuracy", metavar="TEXT", help="what is known of the model's accuracy, for the report's summary")
    p.add_argument("--energy-table", metavar="FILE", help="picojoules per operation and access, as JSON (compiler/cost/energy.py says how)")
    p.add_argument("--print-ir-after", action="append", default=[], metavar="PASS", help="print the IR after PASS to standard error")
    p.add_argument("--time-passes", action="store_true", help="print the time of every pass")
    p.add_argument("--quiet", action="store_true", help="no progress and no summary")
    return p


def _compile(args: argparse.Namespace) -> int:
    _check_output(args)
    if args.device and args.target != "fpga":
        raise QccError(f"device is '{args.device}' and the target {args.target}; add --target fpga, or leave --device out")
    options = CompileOptions(
        target=args.target,
        cpu=args.cpu,
        device=args.device or CompileOptions.device,
        batch=args.batch,
        optimize=args.optimize,
        keep_layers=args.keep_layers,
        storage=args.storage,
        coding=args.coding,
        decode=args.decode,
        energy_table=args.energy_table,
        activations=args.activations,
        float_precision=args.float_precision,
        low_rank=args.low_rank,
        machine=args.machine,
        autotune=args.autotune,
    )
    from qcc.compiler import driver, emit, pipeline
    from qcc.tools.progress import Progress

    known = {stage.name for _, stages in pipeline.forms(options) for stage in stages}
    if unknown := [name for name in args.print_ir_after if name not in known]:
        raise QccError(f"no pass '{unknown[0]}' leads to target {args.target}; compiler/pipeline.py lists those that do")

    inputs = [read_array(path) for path in args.input] or None
    with Progress(quiet=args.quiet) as progress:
        observer = driver.Observer(progress=progress.update)
        _watch(observer, args)
        compilation = driver.start(args.model, options, example_inputs=inputs, observer=observer, calibration=args.calibration)
        if args.emit:
            emit.write_form(compilation, args.emit, args.output)
            executable = None
        else:
            executable = driver.finish(compilation)
            executable.save(args.output)
    if args.time_passes:
        _print_times(compilation.seconds)
    if args.report and executable is not None:
        from qcc.compiler import report

        if options.target == "cpu" and executable.runs_here:
            executable.profile()
        found = {**executable.report, "seconds": [{"stage": name, "seconds": seconds} for name, seconds in compilation.seconds]}
        if args.accuracy:
            found["accuracy"] = args.accuracy
        report.write(found, args.report)
    if executable is not None and not args.quiet:
        from qcc.compiler import report

        print(report.summary(executable.report, Path(args.model), Path(args.output)))
    return 0


def _check_output(args: argparse.Namespace) -> None:
    """Find out before any work whether the outputs can be written."""
    for path in (args.output, args.report):
        if path and path != "-":
            folder = Path(path).resolve().parent
            if not folder.is_dir():
                raise QccError(f"cannot write {path}: there is no folder {folder}; make it first")
            if Path(path).is_dir():
                raise QccError(f"cannot write {path}: it is a folder; name a file")
            if Path(path).resolve() == Path(args.model).resolve():
                raise QccError(f"cannot write {path}: it is the model itself; name another file")
    if args.output == "-" and not args.emit:
        raise QccError("only a form can go to standard output; add --emit, or name a file with -o")
    if args.report and args.emit:
        raise QccError(f"there is no report of a model that stops at the form '{args.emit}'; leave --emit or --report out")
    if args.report:
        from qcc.compiler import report

        report.check_path(args.report)


def _watch(observer: Any, args: argparse.Namespace) -> None:
    def after_stage(stage: Any, seconds: float, module: Any) -> None:
        if stage.name in args.print_ir_after:
            print(f"// after {stage.text}\n{module.operation.get_asm(large_resource_limit=32)}", file=sys.stderr)

    observer.after_stage = after_stage
    if args.dump_forms:
        folder = Path(args.dump_forms)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise QccError(f"cannot write forms into {folder}: {error}") from None
        written: list[str] = []

        def at_form(form: str, module: Any) -> None:
            written.append(form)
            path = folder / f"{len(written)}-{form}.mlir"
            path.write_text(module.operation.get_asm(enable_debug_info=True, large_resource_limit=32))

        observer.at_form = at_form


def _print_times(seconds: list[tuple[str, float]]) -> None:
    total = sum(s for _, s in seconds)
    for name, spent in seconds:
        print(f"{spent:9.3f} s {spent / total:6.1%}  {name}", file=sys.stderr)
    print(f"{total:9.3f} s 100.0%  total", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
