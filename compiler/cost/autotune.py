"""Measures the few best register tiles of every contraction in place, and keeps the answers.

The model is compiled once for each rank of candidate: every codelet with its first choice, every codelet with its second, and so on. They
run in turns, so that a change of the machine's speed meets all, and each codelet takes the tile that was fastest in its own steps, with
caches and neighbours as they are. The answers are kept by codelet in the user's cache directory: a second compilation measures only what
is new, and gives the same artefact.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import qcc
from qcc.dialects import codelet, codelet_cost
from qcc.dialects.codelet import WIDE, Contraction
from qcc.dialects.instruction_sets import ISAS
from qcc.dialects.machine import Machine
from qcc.dialects.mlir import ir, op_attribute, python_value, walk
from qcc.runtime.atomic_file import atomic_write
from qcc.runtime.cache import cache_directory

CANDIDATES = 5
ROUNDS, RUNS = 7, 3
WORTH = 0.97  # of the first choice's time: less gain than this is noise
Tile = tuple[int, int]


def contractions(module: ir.Module) -> dict[str, Contraction]:
    """The contractions of a module in the tiled form whose tiles can be chosen, by name."""
    found: dict[str, Contraction] = {}
    for function in walk(module, "func.func"):
        held = op_attribute(function, "qtile.codelet")
        if held is not None and held.get("kind") == "contraction" and held.get("compute") in codelet_cost.LATENCY_CYCLES:
            found[python_value(function.attributes["sym_name"])] = codelet.from_config(held)
    return found


def candidates(c: Contraction, machine: Machine) -> list[Tile]:
    """(rows, columns) of register tiles: the one it has, then others that fit the registers, by predicted cycles."""
    facts, (_, _, height, width, _) = ISAS[c.isa], c.sizes
    vectors, summed, wide = c.tile[2], c.zero is not None, 2 if c.compute in WIDE else 1
    one_row = c.w.strides[2] != 0
    predicted: dict[Tile, float] = {}
    for rows in range(1, 1 if one_row else min(4, height) + 1):
        if c.chunks[1] % rows and c.chunks[1] < height:
            continue
        for columns in range(1, min(width, 28) + 1) if rows == 1 else (width,):
            if (rows * columns * (vectors + summed) + vectors + 1) * wide <= facts.registers:
                found = codelet_cost.cost(replace(c, tile=(rows, columns, vectors)), machine)
                predicted[rows, columns] = found.cycles if found else 0.0
    own = (c.tile[0], c.tile[1])
    others = sorted((tile for tile in predicted if tile != own), key=predicted.__getitem__)
    return [own, *others[: CANDIDATES - 1]]


def choose(
    module: ir.Module,
    machine: Machine,
    build: Callable[[ir.Module, str], Any],
    *,
    features: Sequence[str],
    progress: Callable[[str, float], None] = lambda text, fraction: None,
) -> str:
    """The option `tiles` for `module` (tiled form), measured where the cache does not know. `build(copy, tiles)` gives an executable."""
    found = contractions(module)
    file = cache_file(machine, features)
    known = read_cache(file)
    missing = {name: candidates(c, machine) for name, c in found.items() if name not in known}
    if any(len(tiles) > 1 for tiles in missing.values()):
        known |= measured(module, missing, build, progress)
    known |= {name: tiles[0] for name, tiles in missing.items() if name not in known}
    if missing:
        write_cache(file, known)
    changed = {name: known[name] for name, c in found.items() if known[name] != c.tile[:2]}
    return as_option(changed)


def measured(
    module: ir.Module, tiles: Mapping[str, list[Tile]], build: Callable[[ir.Module, str], Any], progress: Callable[[str, float], None]
) -> dict[str, Tile]:
    """The fastest of each codelet's tiles."""
    ranks = max(map(len, tiles.values()))
    executables: list[Any] = []
    for rank in range(ranks):
        progress(f"autotune: compile candidates {rank + 1} of {ranks}", 0.5 * rank / ranks)
        choice = as_option({name: own[rank] for name, own in tiles.items() if rank < len(own)})
        executables.append(build(copy_of(module), choice))
    times: dict[tuple[str, int], list[float]] = {}
    for turn in range(ROUNDS):
        progress(f"autotune: measure, round {turn + 1} of {ROUNDS}", 0.5 + 0.5 * turn / ROUNDS)
        for rank, executable in enumerate(executables):
            spent: dict[str, float] = {}
            for _, name, us in executable.profile(runs=RUNS).steps:
                spent[name] = spent.get(name, 0.0) + us
            for name, us in spent.items():
                times.setdefault((name, rank), []).append(us)
    best: dict[str, Tile] = {}
    for name, own in tiles.items():
        least = [min(times[name, rank]) for rank in range(len(own)) if (name, rank) in times]
        if least:
            rank = least.index(min(least))
            best[name] = own[rank if least[rank] < WORTH * least[0] else 0]
    return best


def copy_of(module: ir.Module) -> ir.Module:
    """A copy in the same context, which shares the weights."""
    with module.context, ir.Location.unknown():
        copy = ir.Module.create()
        for name in module.operation.attributes:
            copy.operation.attributes[name] = module.operation.attributes[name]
        for op in module.body.operations:
            copy.body.append(op.operation.clone())
    return copy


def as_option(tiles: Mapping[str, Tile]) -> str:
    return ";".join(f"{name}={rows}x{columns}" for name, (rows, columns) in sorted(tiles.items()))


def cache_file(machine: Machine, features: Sequence[str]) -> Path:
    """One file for each CPU, set of features and version of qcc."""
    key = json.dumps([qcc.__version__, machine.cpu, machine.cache_bytes, list(features)], sort_keys=True)
    return cache_directory() / "tiles" / f"{hashlib.sha256(key.encode()).hexdigest()[:16]}.json"


def read_cache(file: Path) -> dict[str, Tile]:
    try:
        return {name: (int(rows), int(columns)) for name, (rows, columns) in json.loads(file.read_text()).items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}  # it only saves time


def write_cache(file: Path, tiles: Mapping[str, Tile]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(file) as stream:
        stream.write((json.dumps(tiles, sort_keys=True, indent=1) + "\n").encode())
