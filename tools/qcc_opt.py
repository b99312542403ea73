"""qcc-opt: run any pass or pipeline, qcc's or upstream's, on a module."""

from __future__ import annotations

import argparse
import re
import sys
from dataclasses import dataclass
from pathlib import Path

from qcc.dialects.errors import QccError
from qcc.dialects.mlir import create_context, ir, parse_module
from qcc.passes.base import PassContext, Stage, parse_pipeline, pass_files, run_pipeline
from qcc.runtime.atomic_file import atomic_write
from qcc.tools.entry import Parser, guarded

EPILOG = """\
examples:
  qcc-opt in.mlir --pass-pipeline='builtin.module(propagate-bitwidth,canonicalize)'
  qcc-opt in.mlir -p fold-qdq,cse --print-ir-after fold-qdq
  qcc-opt in.mlir --split-input-file --verify-diagnostics    # against // expected-error@+1 {{...}} comments
"""


def main(argv: list[str] | None = None) -> int:
    args = _parser().parse_args(argv)
    if args.list_passes:
        for name, path in sorted(pass_files().items()):
            print(f"{name:34} {path.parent.name}")
        return 0
    return guarded("qcc-opt", lambda: _run(args))


def _run(args: argparse.Namespace) -> int:
    try:
        text = sys.stdin.read() if args.input == "-" else Path(args.input).read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise QccError(f"cannot read {args.input}: {error}") from None
    stages = parse_pipeline(args.pass_pipeline) if args.pass_pipeline else []
    if unknown := set(args.print_ir_after) - {stage.name for stage in stages}:
        raise QccError(f"--print-ir-after names '{min(unknown)}', expected a pass of --pass-pipeline")
    chunks = re.split(r"^// -----.*\n", text, flags=re.MULTILINE) if args.split_input_file else [text]
    results = [_process(chunk, stages, args) for chunk in chunks]
    output = "// -----\n".join(r.printed for r in results if r.printed)
    if args.output == "-":
        sys.stdout.write(output)
    else:
        with atomic_write(args.output) as stream:
            stream.write(output.encode())
    return max(r.status for r in results)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="qcc-opt", description=__doc__, epilog=EPILOG)
    parser.add_argument("input", nargs="?", default="-", help="MLIR file, or - for standard input")
    parser.add_argument("-o", "--output", default="-", help="where the result goes (default: standard output)")
    parser.add_argument("-p", "--pass-pipeline", help="'builtin.module(a,b{option=value})' or 'a,b'")
    parser.add_argument("--split-input-file", action="store_true", help="process the parts between '// -----' lines one by one")
    parser.add_argument(
        "--verify-diagnostics",
        action="store_true",
        help="expect the errors that // expected-error {{...}} comments announce",
    )
    parser.add_argument(
        "--allow-unregistered-dialect",
        action="store_true",
        help="accept operations of unknown dialects, such as test.op",
    )
    parser.add_argument(
        "--print-ir-after",
        action="append",
        default=[],
        metavar="PASS",
        help="print the module after PASS to standard error",
    )
    parser.add_argument("--print-remarks", action="store_true", help="print what passes remark and the facts they record")
    parser.add_argument("--mlir-print-debuginfo", action="store_true", help="print locations")
    parser.add_argument("--elide-resources", action="store_true", help="leave the contents of large constants out")
    parser.add_argument("--time-passes", action="store_true", help="print the seconds of every pass to standard error")
    parser.add_argument("--list-passes", action="store_true", help="print qcc's passes and their rooms")
    return parser


@dataclass
class _Result:
    printed: str
    status: int


@dataclass(frozen=True)
class _Found:
    line: int
    kind: str
    message: str


def _process(text: str, stages: list[Stage], args: argparse.Namespace) -> _Result:
    context = create_context()
    context.allow_unregistered_dialects = args.allow_unregistered_dialect
    found: list[_Found] = []
    printed = ""
    try:
        module = parse_module(text, context, name=args.input)
        facts = run_pipeline(module, stages, after=lambda stage, seconds: _after(stage, seconds, module, args))
        if args.print_remarks:
            _print_remarks(facts)
        printed = module.operation.get_asm(
            enable_debug_info=args.mlir_print_debuginfo, large_resource_limit=32 if args.elide_resources else None
        )
    except QccError as error:
        found.append(_Found(_line_of(error.location), "error", str(error)))
    if args.verify_diagnostics:
        problems = _compare(text, found)
        for problem in problems:
            print(f"{args.input}: {problem}", file=sys.stderr)
        return _Result(printed, int(bool(problems)))
    for item in found:
        print(f"{args.input}:{item.line}: {item.kind}: {item.message}", file=sys.stderr)
    return _Result(printed, int(any(f.kind == "error" for f in found)))


def _line_of(location: str) -> int:
    match = re.search(r'"[^"]*":(\d+):\d+', location)
    return int(match[1]) if match else 0


def _after(stage: Stage, seconds: float, module: ir.Module, args: argparse.Namespace) -> None:
    if args.time_passes:
        print(f"{seconds:9.4f} s  {stage.text}", file=sys.stderr)
    if stage.name in args.print_ir_after:
        print(f"// after {stage.text}\n{module.operation.get_asm(large_resource_limit=32)}", file=sys.stderr)


def _print_remarks(context: PassContext) -> None:
    for remark in context.remarks:
        print(f"// remark: {remark}")
    for layer, facts in context.facts.items():
        print(f"// {layer}: " + ", ".join(f"{k} = {v}" for k, v in facts.items()))


def _compare(text: str, found: list[_Found]) -> list[str]:
    """Unmet expectations and unexpected errors. `@+N`, `@-N` count lines; `@unknown` fits any line (a layer name hides the place)."""
    expected: list[tuple[int | None, str, str]] = []
    for number, line in enumerate(text.splitlines(), 1):
        for match in re.finditer(r"expected-(error|warning|remark)\s*(?:@(unknown|[+-]\d+))?\s*\{\{(.*?)\}\}", line):
            where = None if match[2] == "unknown" else number + int(match[2] or 0)
            expected.append((where, match[1], match[3]))
    problems: list[str] = []
    rest = list(found)
    for where, kind, message in expected:
        fit = next((f for f in rest if f.kind == kind and message in f.message and where in (None, f.line)), None)
        if fit is None:
            problems.append(f"line {where or '?'}: expected {kind} was not produced: {message}")
        else:
            rest.remove(fit)
    problems += [f"line {f.line}: unexpected {f.kind}: {f.message}" for f in rest if f.kind in ("error", "warning")]
    return problems


if __name__ == "__main__":
    sys.exit(main())
