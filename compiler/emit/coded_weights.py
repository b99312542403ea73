"""The weights of a module as an artefact stores them: raw, or entropy-coded, and what each layer's share of them is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from qcc.compiler.emit.weights_blob import weights_blob
from qcc.dialects.mlir import ir, op_attribute, python_value
from qcc.dialects.weight_recipes import AnyRecipe, recipe_of
from qcc.runtime.reference import codecs, weights_image
from qcc.runtime.reference.weights_image import Entry

Array = np.ndarray[Any, Any]
_MODE_NAMES = {codecs.RAW: "raw", codecs.HUFFMAN: "huffman", codecs.RANS: "rans"}


@dataclass(frozen=True)
class StoredWeights:
    """`block` u8 is the decoded weights, `data` u8 what is stored: an image, or the block itself where `codec` is none and nothing is made
    of fewer bytes while the model is loaded. Both aligned to 64 bytes. `decode` is load or stream."""

    block: Array
    data: Array
    codec: str
    decode: str
    entries: list[Entry]
    is_image: bool = True

    @property
    def streams(self) -> bool:
        """Whether they stay coded while the model runs."""
        return self.codec != "none" and self.decode == "stream"


def stored_weights(module: ir.Module, codec: str, decode: str) -> StoredWeights:
    """The weights of a module in llvm form, coded with `codec`: none, huffman, rans, or auto for the smaller per tensor."""
    block = weights_blob(module)
    offsets = [entry["offset_bytes"].value for entry in module.operation.attributes["qcc.weights"]]
    ends = [*offsets[1:], block.size] if offsets else []
    spans = [(start, end - start) for start, end in zip(offsets, ends, strict=True)]
    recipes = _recipes(module)
    if (codec == "none" and not recipes) or not spans:
        raw = [Entry(start, size, stored_bytes=size, entropy_bytes=_entropy_bytes(block[start : start + size])) for start, size in spans]
        return StoredWeights(block, block, "none", decode, raw, is_image=False)
    if decode == "load":
        image = weights_image.encode(block, spans, codec, recipes)
    else:  # tables stay as they are: to read a few rows all would be decoded
        tables = [i for i, entry in enumerate(module.operation.attributes["qcc.weights"]) if "looked_up" in entry]
        image = weights_image.encode(block, spans, codec, raw=tables)
    return StoredWeights(block, image.data, codec, decode, image.entries)


def _recipes(module: ir.Module) -> dict[int, AnyRecipe]:
    """How weights are made of fewer bits while a model is loaded, by the number of the weight. Streams have no place for the source."""
    entries = enumerate(module.operation.attributes["qcc.weights"])
    return {i: recipe_of(python_value(entry["recipe"])) for i, entry in entries if "recipe" in entry}


def _entropy_bytes(data: Array) -> float:
    p = np.bincount(data, minlength=1) / max(data.size, 1)
    return float(-(p[p > 0] * np.log2(p[p > 0])).sum()) * data.size / 8


def summary(module: ir.Module, stored: StoredWeights) -> dict[str, Any]:
    """Sizes of everything, with tables, directories and padding: what the report says about the coding of the model. `at_once_bytes` are
    the most that are decoded at a time."""
    modes = [_MODE_NAMES[e.mode] for e in stored.entries]
    return {
        "codec": stored.codec,
        "decode": stored.decode,
        "at_once_bytes": _most_of_a_step(module, stored.entries) if stored.streams else stored.block.size,
        "stored_bytes": stored.data.size,
        "decoded_bytes": stored.block.size,
        "entropy_bytes": round(sum(e.entropy_bytes for e in stored.entries)),
        "coded_bytes": sum(e.stored_bytes for e in stored.entries if e.mode != codecs.RAW),
        "coded_entropy_bytes": round(sum(e.entropy_bytes for e in stored.entries if e.mode != codecs.RAW)),
        "tensors": {name: modes.count(name) for name in sorted(set(modes))},
        "shared_tables": sum(e.mode != codecs.RAW and not e.own_table for e in stored.entries),
    }


def _most_of_a_step(module: ir.Module, entries: Sequence[Entry]) -> int:
    """Bytes of the coded weights of the neediest step."""
    coded = {e.offset_bytes: e.size_bytes for e in entries if e.mode != codecs.RAW}
    steps = op_attribute(module.operation, "qcc.steps", [])
    return max((sum(coded.get(offset, 0) for offset in set(step["weights"])) for step in steps), default=0)


def per_layer(module: ir.Module, stored: StoredWeights) -> dict[str, dict[str, Any]]:
    """Per layer of the source model: its `codelets`, `stored_bytes` of all its constants, and of its weights, which are the largest of
    them and its index, `codec`, `weights_stored_bytes` and `weights_entropy_bytes` (order 0, of the packed bytes). A constant that layers
    share counts for the first. Steps of one operation each have a part of its weights."""
    at = {e.offset_bytes: e for e in stored.entries}
    seen: set[int] = set()
    found: dict[str, dict[str, Any]] = {}
    weights: dict[Any, list[Entry]] = {}  # of each operation
    for number, step in enumerate(op_attribute(module.operation, "qcc.steps", [])):
        layer = found.setdefault(step["layer"], {"stored_bytes": 0, "weights_size_bytes": 0, "codelets": []})
        if step["codelet"] not in layer["codelets"]:
            layer["codelets"].append(step["codelet"])
        own = [at[o] for o in _new(step["weights"], seen) if o in at]
        if not own:
            continue
        layer["stored_bytes"] += sum(e.stored_bytes for e in own)
        largest = max(own, key=lambda e: e.size_bytes)
        parts = weights.setdefault(step.get("operation", (number,)), [])
        parts += [e for e in own if e.offset_bytes in step.get("stored", [])] or [largest]
        size_bytes = sum(e.size_bytes for e in parts)
        if size_bytes > layer["weights_size_bytes"]:
            layer |= {
                "weights_size_bytes": size_bytes,
                "weights_stored_bytes": sum(e.stored_bytes for e in parts),
                "weights_entropy_bytes": round(sum(e.entropy_bytes for e in parts)),
                "codec": _MODE_NAMES[largest.mode],
            }
    return found


def _new(offsets: Sequence[int], seen: set[int]) -> list[int]:
    fresh = [o for o in dict.fromkeys(offsets) if o not in seen]
    seen.update(fresh)
    return fresh
