"""What every accelerator instruction does to buffers and DRAM, bit by bit, in numpy.

The state is what the hardware holds: words of bit-planes, weight lines with their tags, parameters, accumulator tiles
on their way to the post unit. Time is not here (see cycle.py) and neither are tokens (see functional.py). A program
that leaves its buffers or DRAM is an error.
"""

from __future__ import annotations

import hashlib
from collections import deque
from dataclasses import dataclass
from typing import Any

import numpy as np

from qcc.dialects import activation_codings, bitplanes
from qcc.dialects.accelerator import Configuration
from qcc.dialects.errors import QccError
from qcc.runtime.fpga.encoder import Word
from qcc.runtime.fpga.isa import ACTIVATION_CODINGS, CODINGS, MAX_SHIFT, PARAMETER_BYTES, RESIDUAL_BITS, ROUNDINGS

Lines = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]

_WRAP = np.int64(1) << 32


def wrap32(values: np.ndarray) -> np.ndarray:
    """i64 values reduced to what a 32-bit accumulator holds."""
    return (values + (_WRAP >> 1)) % _WRAP - (_WRAP >> 1)


def shift_right(values: np.ndarray, shift: Any, rounding: str) -> np.ndarray:
    """round(values / 2^shift) of i64 values; `half_away` from zero or `half_even`. `shift` broadcasts."""
    shift = np.asarray(shift, np.int64)
    half = np.where(shift > 0, np.int64(1) << np.maximum(shift - 1, 0), 0)
    floor = values >> shift
    rest = values - (floor << shift)
    if rounding == "half_away":
        up = (rest > half) | ((rest == half) & (values >= 0))
    else:
        up = (rest > half) | ((rest == half) & ((floor & 1) == 1))
    return floor + (up & (shift > 0))


_PIXELS = ("load_activations", "load_residual", "store")  # instructions that move activations
KEPT_MATRICES = 64  # decoded weight blocks that machines of one program share


@dataclass(frozen=True)
class Matrix:
    """Weights as the simulator multiplies: `matrix` [kept input positions, tiles * R], of vectors of `words` words."""

    matrix: np.ndarray
    kept: np.ndarray
    words: int


@dataclass
class Tiles:
    """Accumulators that execute hands to post: values [groups * tiles, R, C] i64."""

    values: np.ndarray


class Machine:
    """One accelerator of `configuration` with `dram` [words, K/8] u8; `run` executes one instruction to its end."""

    def __init__(self, configuration: Configuration, dram: np.ndarray, matrices: dict[Any, Matrix] | None = None) -> None:
        """`matrices` is a cache that machines may share."""
        c = self.configuration = configuration
        self.dram = dram
        word = c.word_bytes
        self.activations = np.zeros((c.columns, c.activation_words, word), np.uint8)
        self.residuals = np.zeros((c.columns, c.residual_words, word), np.uint8)
        self.outputs = np.zeros((c.columns, c.output_words, word), np.uint8)
        self.lines = np.zeros((c.weight_lines, c.rows, word), np.uint8)
        self.line_plane = np.zeros(c.weight_lines, np.int64)
        self.line_index = np.zeros(c.weight_lines, np.int64)
        self.line_last = np.zeros(c.weight_lines, bool)
        self.parameters = np.zeros((c.parameter_entries, 3), np.int64)  # bias, multiplier, shift
        self.accumulators = np.zeros((c.rows, c.columns), np.int64)
        self.pending: deque[Tiles] = deque()
        self.pending_tiles = 0
        self.modes: dict[str, Word] = {}
        self._matrices: dict[Any, Matrix] = {} if matrices is None else matrices
        self.coded_words: int | None = None  # that the last instruction moved, where its pixels were coded

    def run(self, word: Word) -> None:
        """Execute `word`. Raises QccError where it addresses what does not exist."""
        self.coded_words = None
        handler = getattr(self, f"_{word.name}", None)
        if handler is None:
            self.modes[word.name] = word
        else:
            handler(word)

    def moved_words(self, word: Word) -> int | None:
        """Words that a load or store moves from or to DRAM; None for the other instructions.

        Of coded pixels what the last `run` moved, or the most where it moved nothing.
        """
        raw, coding = self._raw_words(word), self.coding(word)
        if raw is None or coding == "raw":
            return raw
        if self.coded_words is not None:
            return self.coded_words
        run = self._mode("load_geometry")["run_words"] if word.name == "load_activations" else word["run_words"]
        return raw // run * activation_codings.slot_words(coding, run) if run else 0

    def coding(self, word: Word) -> str:
        """How the pixels that `word` moves are coded (isa.ACTIVATION_CODINGS), if it moves any.

        Raises QccError for a coding that load and store were built without.
        """
        if word.name not in _PIXELS:
            return "raw"
        coding = (self._mode("load_layout") if word.name == "load_activations" else word)["coding"]
        if coding >= self.configuration.activation_codings:
            raise QccError(
                f"{word.name} moves pixels coded as {ACTIVATION_CODINGS[coding]}, expected one of the accelerator's "
                f"{self.configuration.activation_codings}: {', '.join(ACTIVATION_CODINGS[: self.configuration.activation_codings])}"
            )
        return ACTIVATION_CODINGS[coding]

    def pixel_bytes(self, word: Word) -> dict[str, tuple[int, int]]:
        """Bytes of the pixels that `word` moves, by their coding: moved, and as raw ones would be. Empty for other instructions."""
        if word.name not in _PIXELS:
            return {}
        size = self.configuration.word_bytes
        return {self.coding(word): ((self.moved_words(word) or 0) * size, (self._raw_words(word) or 0) * size)}

    def _raw_words(self, word: Word) -> int | None:
        """As `moved_words`, if nothing were coded."""
        if word.name == "load_activations":
            g = self._mode("load_geometry")
            return word["count"] * g["kernel_y"] * g["kernel_x"] * g["run_words"]
        if word.name == "load_weights":
            return word["size_words"]
        if word.name == "load_parameters":
            return -(-word["count"] * PARAMETER_BYTES // self.configuration.word_bytes)
        if word.name in ("load_residual", "store"):
            return word["count"] * word["run_words"]
        return None

    def ready(self, word: Word) -> bool:
        """Whether the accumulator tiles that a `post` takes have been emitted; True for every other instruction."""
        return word.name != "post" or self.pending_tiles >= word["tiles"] * word["groups"]

    def _mode(self, name: str) -> Word:
        if name not in self.modes:
            raise QccError(f"the program uses the accelerator before '{name}' sets it up")
        return self.modes[name]

    def _finish(self, word: Word) -> None:
        if self.pending_tiles:
            raise QccError(f"the program ends with {self.pending_tiles} accumulator tiles that no post instruction took")

    # load

    def _load_activations(self, word: Word) -> None:
        geometry, layout, c = self._mode("load_geometry"), self._mode("load_layout"), self.configuration
        ky, kx, run = geometry["kernel_y"], geometry["kernel_x"], geometry["run_words"]
        pixel = word["first"] + np.arange(word["count"])
        base = word["activation"] + (pixel // c.columns) * layout["vector_words"]  # [count]
        size = ky * kx * run
        self._check_buffer("activation", base, size, c.activation_words)
        y = word["y"] + np.arange(ky) * geometry["dilation_y"]  # [ky]
        x = word["x"] + np.arange(word["count"])[:, None] * geometry["stride_x"] + np.arange(kx) * geometry["dilation_x"]  # [count, kx]
        inside = ((y >= 0) & (y < geometry["height"]))[None, :, None] & ((x >= 0) & (x < geometry["width"]))[:, None, :]
        source = word["address"] + y[None, :, None] * layout["row_words"] + x[:, None, :] * layout["pixel_words"]
        source = np.where(inside, source, layout["padding"])  # [count, ky, kx]
        found = self._read_runs(source.reshape(-1), run, word).reshape(len(pixel), size, c.word_bytes)
        self.activations[(pixel % c.columns)[:, None], base[:, None] + np.arange(size)] = found

    def _read_runs(self, addresses: np.ndarray, run: int, word: Word) -> np.ndarray:
        """The words [n, run, K/8] of the pixels at `addresses` [n] that `word` loads."""
        coding = self.coding(word)
        places = addresses[:, None] + np.arange(activation_codings.slot_words(coding, run))
        self._check_dram(places)
        found, used = activation_codings.decode(coding, self.dram[places], run)
        self.coded_words = int(used.sum())
        return found

    def _load_residual(self, word: Word) -> None:
        c, run = self.configuration, word["run_words"]
        pixel = word["first"] + np.arange(word["count"])
        base = word["residual"] + (pixel // c.columns) * run
        self._check_buffer("residual", base, run, c.residual_words)
        found = self._read_runs(word["address"] + np.arange(word["count"]) * word["pixel_words"], run, word)
        self.residuals[(pixel % c.columns)[:, None], base[:, None] + np.arange(run)] = found

    def _load_parameters(self, word: Word) -> None:
        c, first, count = self.configuration, word["parameter"], word["count"]
        if first + count > c.parameter_entries:
            raise QccError(f"load_parameters writes entries {first}..{first + count - 1}, the parameter buffer has {c.parameter_entries}")
        data = self._dram_bytes(word["address"], -(-count * PARAMETER_BYTES // c.word_bytes))[: count * PARAMETER_BYTES]
        fields = data.view("<i4").reshape(count, 4).astype(np.int64)
        if count and not ((fields[:, 2] >= 0) & (fields[:, 2] <= MAX_SHIFT)).all():
            raise QccError(f"load_parameters reads a shift of {fields[:, 2].max()}, expected 0..{MAX_SHIFT}")
        self.parameters[first : first + count] = fields[:, :3]

    def _load_weights(self, word: Word) -> None:
        plane, index, last, payload = self._decoded(word)
        first, count = word["line"], len(plane)
        if first + count > self.configuration.weight_lines:
            raise QccError(
                f"load_weights writes lines {first}..{first + count - 1}, the weight buffer has {self.configuration.weight_lines}"
            )
        where = slice(first, first + count)
        self.lines[where], self.line_plane[where], self.line_index[where], self.line_last[where] = payload, plane, index, last

    def _decoded(self, word: Word) -> Lines:
        """Planes, indices, last marks and words of the lines that a load_weights reads."""
        return decode_lines(self._dram_bytes(word["address"], word["size_words"]), word, self.configuration)

    # execute

    def _execute(self, word: Word) -> None:
        mode, c = self._mode("execute_mode"), self.configuration
        tiles, groups = word["tiles"], word["groups"]
        if not (word["emit"] and not word["accumulate"]) and (tiles, groups) != (1, 1):
            raise QccError(f"execute keeps accumulators over {tiles} tiles and {groups} groups, expected one of each")
        if not tiles or not groups:
            raise QccError("execute has no tiles or no groups, expected at least one of each")
        weights = self._weight_matrix(word, mode)
        x = self._vectors(word, mode, weights)  # [groups * C, columns kept]
        sums = (x @ weights.matrix).reshape(groups, c.columns, tiles, c.rows).transpose(0, 2, 3, 1)
        values = wrap32(sums.astype(np.int64)).reshape(groups * tiles, c.rows, c.columns)
        if word["accumulate"]:
            values = wrap32(values + self.accumulators)
        if word["emit"]:
            self.pending.append(Tiles(values))
            self.pending_tiles += len(values)
        else:
            self.accumulators = values[0]

    def tile_ends(self, word: Word) -> np.ndarray:
        """Line behind each of the tiles that `execute` word runs."""
        ends = np.flatnonzero(self.line_last[word["line"] :])[: word["tiles"]]
        if len(ends) < word["tiles"]:
            raise QccError(f"execute runs {word['tiles']} weight tiles from line {word['line']}, the buffer holds {len(ends)}")
        return word["line"] + ends + 1

    def _weight_matrix(self, word: Word, mode: Word) -> Matrix:
        """The tiles that `word` runs as one matrix, kept for as long as the same lines come again."""
        ends = self.tile_ends(word)
        where = slice(word["line"], int(ends[-1]))
        digest = hashlib.blake2b(self.lines[where].tobytes(), digest_size=16)
        digest.update(self.line_plane[where].tobytes() + self.line_index[where].tobytes() + ends.tobytes())
        key = (digest.digest(), word["line"], *(mode[k] for k in ("planes", "weight_planes", "weight_signed", "bipolar")))
        if key not in self._matrices:
            while len(self._matrices) >= KEPT_MATRICES:
                self._matrices.pop(next(iter(self._matrices), key), None)
            self._matrices[key] = self._decode_matrix(word, mode, ends, where)
        return self._matrices[key]

    def _decode_matrix(self, word: Word, mode: Word, ends: np.ndarray, where: slice) -> Matrix:
        c, planes = self.configuration, mode["weight_planes"]
        index, plane = self.line_index[where], self.line_plane[where]
        if plane.max() >= planes:
            raise QccError(f"execute runs weight plane {plane.max()}, execute_mode announces {planes}")
        words = int(index.max()) + 1
        tile = np.searchsorted(ends, np.arange(where.start, where.stop), side="right")
        bits = np.unpackbits(self.lines[where], axis=-1, bitorder="little").astype(np.float64)  # [lines, R, K]
        if mode["bipolar"]:
            bits = 2 * bits - 1
        matrix = np.zeros((word["tiles"], words, c.rows, c.word_bits))
        scale = bitplanes.plane_weights(planes, bool(mode["weight_signed"]))
        for p in np.unique(plane):  # a damaged program may repeat a line within a tile, so this adds one by one there
            of = plane == p
            places = tile[of] * words + index[of]
            if len(np.unique(places)) == len(places):
                matrix[tile[of], index[of]] += bits[of] * scale[p]
            else:
                np.add.at(matrix, (tile[of], index[of]), bits[of] * scale[p])
        flat = matrix.transpose(1, 3, 0, 2).reshape(words * c.word_bits, word["tiles"] * c.rows)
        kept = np.flatnonzero(flat.any(axis=1))
        # Exact: with the bound below no partial sum leaves the 24 or 53 bits of the float's significand.
        bound = float(np.abs(flat).sum(axis=0).max()) * 2.0 ** mode["planes"]
        return Matrix(np.ascontiguousarray(flat[kept], np.float32 if bound < 1 << 24 else np.float64), kept, words)

    def _vectors(self, word: Word, mode: Word, weights: Matrix) -> np.ndarray:
        planes, c, words = mode["planes"], self.configuration, weights.words
        base = word["activation"] + np.arange(word["groups"]) * mode["vector_words"]
        self._check_buffer("activation", base, words * planes, c.activation_words)
        held = self.activations[:, base[:, None] + np.arange(words * planes)]  # [C, groups, words * planes, K/8]
        held = held.reshape(c.columns, word["groups"], words, planes, c.word_bytes)
        bits = np.unpackbits(held, axis=-1, bitorder="little").transpose(3, 1, 0, 2, 4)  # [planes, groups, C, words, K]
        bits = bits.reshape(planes, word["groups"] * c.columns, words * c.word_bits)[:, :, weights.kept]
        values = np.zeros(bits.shape[1:], weights.matrix.dtype)
        for plane, scale in zip(bits, bitplanes.plane_weights(planes, bool(mode["signed"])) if planes else (), strict=True):
            values += plane * values.dtype.type(scale)
        return values

    # post

    def _take(self, count: int) -> np.ndarray:
        taken: list[np.ndarray] = []
        if self.pending_tiles < count:
            raise QccError(f"post takes {count} accumulator tiles, execute emitted {self.pending_tiles}")
        self.pending_tiles -= count
        while count:
            head = self.pending[0].values
            taken.append(head[:count])
            if len(head) > count:
                self.pending[0] = Tiles(head[count:])
            else:
                self.pending.popleft()
            count -= len(taken[-1])
        return np.concatenate(taken)

    def _post(self, word: Word) -> None:
        mode, residual, c = self._mode("post_requantize"), self._mode("post_residual"), self.configuration
        tiles, groups, window = word["tiles"], word["groups"], word["window"]
        if not tiles or not groups or not window or tiles % window:
            raise QccError(f"post pools {tiles} tiles of {groups} groups in windows of {window}, expected a multiple of the window")
        channels = tiles // window * c.rows
        self._check_buffer("parameter", np.array([word["parameter"]]), channels, c.parameter_entries)
        rounding = ROUNDINGS[mode["rounding"]]
        bias, multiplier, shift = (
            p.reshape(1, -1, 1, c.rows, 1) for p in self.parameters[word["parameter"] : word["parameter"] + channels].T
        )
        acc = self._take(tiles * groups).reshape(groups, tiles // window, window, c.rows, c.columns)
        y = shift_right(wrap32(acc + bias) * multiplier, shift, rounding) + mode["zero_point"]
        y = np.clip(y, mode["low"], mode["high"]).max(axis=2)  # [groups, tiles / window, R, C]
        y = y.transpose(0, 3, 1, 2).reshape(groups, c.columns, channels)
        if residual["enable"]:
            y = self._add_residual(word, y, rounding)
        self._write_planes(word, y, mode)

    def _add_residual(self, word: Word, y: np.ndarray, rounding: str) -> np.ndarray:
        scale, mode, c = self._mode("post_residual_scale"), self._mode("post_residual"), self.configuration
        low, high, limit = *(self._mode("post_requantize")[k] for k in ("low", "high")), 1 << RESIDUAL_BITS - 1
        if not -limit <= low <= high < limit:
            raise QccError(f"post adds a residual to values of {low}..{high}, expected a part of {-limit}..{limit - 1}")
        planes, first = mode["planes"], word["channel"] // c.word_bits
        words = bitplanes.words_for(word["channel"] + y.shape[2], c.word_bits) - first
        base = word["residual"] + first * planes + np.arange(word["groups"]) * mode["residual_words"]
        self._check_buffer("residual", base, words * planes, c.residual_words)
        held = self.residuals[:, base[:, None] + np.arange(words * planes)].reshape(c.columns, -1, words, planes, c.word_bytes)
        offset = word["channel"] % c.word_bits
        other = bitplanes.unpack(held, bool(mode["signed"])).transpose(1, 0, 2)[:, :, offset : offset + y.shape[2]]
        total = (y - scale["zero_a"]) * np.int64(scale["multiplier_a"]) + (other - scale["zero_b"]) * np.int64(scale["multiplier_b"])
        return np.clip(shift_right(total, scale["shift"], rounding) + mode["zero_point"], mode["low"], mode["high"])

    def _write_planes(self, word: Word, y: np.ndarray, mode: Word) -> None:
        c, planes, groups = self.configuration, mode["bits"], word["groups"]
        first, offset = divmod(word["channel"], c.word_bits)
        if word["channel"] % c.rows or not 1 <= planes <= 32:
            raise QccError(f"post writes {planes} planes from channel {word['channel']}, expected 1..32 planes and a multiple of {c.rows}")
        words = bitplanes.words_for(offset + y.shape[2], c.word_bits)
        base = word["output"] + first * planes + np.arange(groups) * word["output_words"]
        self._check_buffer("output", base, words * planes, c.output_words)
        place = base[:, None] + np.arange(words * planes)
        valid = word["channel"] + np.arange(y.shape[2]) < mode["channels"]
        values = np.zeros((groups, c.columns, words * c.word_bits), np.int64)
        values[:, :, offset : offset + y.shape[2]] = np.where(valid, y, 0)
        packed = bitplanes.pack(values, planes, c.word_bits).transpose(1, 0, 2, 3, 4)  # [C, groups, words, planes, K/8]
        if offset:  # the bits below belong to an earlier instruction
            held = self.outputs[:, base[:, None] + np.arange(planes)]
            mask = np.packbits(np.arange(c.word_bits) < offset, bitorder="little")
            packed[:, :, 0] |= held & mask
        self.outputs[:, place] = packed.reshape(c.columns, groups, words * planes, c.word_bytes)

    # store

    def _store(self, word: Word) -> None:
        c, run = self.configuration, word["run_words"]
        pixel = np.arange(word["count"])
        base = word["output"] + (pixel // c.columns) * word["output_words"]
        self._check_buffer("output", base, run, c.output_words)
        found = self.outputs[(pixel % c.columns)[:, None], base[:, None] + np.arange(run)]
        coding = self.coding(word)
        found, used = activation_codings.code(coding, found)
        self.coded_words = int(used.sum())
        target = word["address"] + pixel[:, None] * word["pixel_words"] + np.arange(found.shape[1])
        self._check_dram(target)
        self.dram[target] = found

    # bounds

    def _check_buffer(self, name: str, base: np.ndarray, size: int, depth: int) -> None:
        if base.size and size and int(base.max()) + size > depth:
            raise QccError(f"the program reaches word {int(base.max()) + size - 1} of the {name} buffer, which has {depth}")

    def _check_dram(self, addresses: np.ndarray) -> None:
        if addresses.size and (int(addresses.min()) < 0 or int(addresses.max()) >= len(self.dram)):
            raise QccError(
                f"the program reaches DRAM words {int(addresses.min())}..{int(addresses.max())}, the memory map has {len(self.dram)}"
            )

    def _dram_bytes(self, address: int, words: int) -> np.ndarray:
        if address + words > len(self.dram):
            raise QccError(f"the program reaches DRAM word {address + words - 1}, the memory map has {len(self.dram)}")
        return np.ascontiguousarray(self.dram[address : address + words]).reshape(-1)


def decode_lines(data: np.ndarray, word: Word, c: Configuration) -> Lines:
    """(plane, index, last, payload [lines, R, K/8]) of a load_weights' bytes. Raises QccError where they are not `tiles` whole tiles."""
    line_bytes, words = c.rows * c.word_bytes, word["words"]
    if not words:
        raise QccError("load_weights has vectors of 0 words, expected at least 1")
    if CODINGS[word["coding"]] == "raw":
        count = words * word["planes"]
        if len(data) != count * word["tiles"] * line_bytes:
            raise QccError(f"load_weights reads {len(data)} bytes, expected {count * word['tiles'] * line_bytes} for raw lines")
        place = np.tile(np.arange(count), word["tiles"])
        return place // words, place % words, place == count - 1, data.reshape(-1, c.rows, c.word_bytes)
    places, lasts, payload, at, tiles = [], [], [], 0, 0
    while at < len(data):
        plane, index, count, last = bitplanes.parse_header(data[at : at + c.word_bytes])
        at += c.word_bytes
        if not count or index >= words or at + count * line_bytes > len(data):
            raise QccError(f"load_weights finds a damaged run header: plane {plane}, word {index} of {words}, {count} lines")
        places.append(plane * words + index + np.arange(count))
        lasts.append((np.arange(count) == count - 1) & last)
        payload.append(data[at : at + count * line_bytes])
        at += count * line_bytes
        tiles += last
    if tiles != word["tiles"] or not (lasts and lasts[-1][-1]):
        raise QccError(f"load_weights finds {tiles} tiles in its runs, expected {word['tiles']}")
    place = np.concatenate(places)
    return place // words, place % words, np.concatenate(lasts), np.concatenate(payload).reshape(-1, c.rows, c.word_bytes)
