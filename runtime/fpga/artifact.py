"""The accelerator file: one file with everything, that is either whole and right or refused.

offset  size
0       4     magic "QFPG"
4       4     format version, little-endian
8       8     size of the file
16      16    fingerprint of the accelerator's configuration, hexadecimal digits
32      8     size of the metadata
40      32    SHA-256 of everything else: bytes 0 to 39 and 72 to the end
72            metadata, JSON; then the sections it names: instruction streams, weight image, host segments
"""

from __future__ import annotations

import hashlib
import json
import struct
from pathlib import Path
from typing import Any

from qcc.dialects.accelerator import Configuration
from qcc.dialects.errors import QccError
from qcc.runtime.atomic_file import atomic_write
from qcc.runtime.fpga.encoder import decode_stream, encode_stream
from qcc.runtime.fpga.isa import INSTRUCTION_BYTES
from qcc.runtime.fpga.package import HOST_KINDS, Host, Package, Segment, Step
from qcc.runtime.fpga.ports import Port

MAGIC = b"QFPG"
VERSION = 1
_HEADER = struct.Struct("<4sIQ16sQ")
_HASH_BYTES = 32
_START = _HEADER.size + _HASH_BYTES


def to_bytes(package: Package) -> bytes:
    """The file's contents; the same package always gives the same bytes."""
    body = b""
    sections: dict[str, list[int]] = {}

    def add(name: str, data: bytes) -> None:
        nonlocal body
        sections[name] = [len(body), len(data)]
        body += data + b"\0" * (-len(data) % 8)

    for name, segment in package.segments.items():
        add(f"stream:{name}", encode_stream(segment.words))
    add("weights", package.weights)
    for name, host in package.hosts.items():
        add(f"host:{name}", host.data)
    metadata = json.dumps(
        {
            "configuration": package.configuration.to_dict(),
            "arena_bytes": package.arena_bytes,
            "segments": {
                name: {"layers": _runs(s.layers), "inputs": [p.as_dict() for p in s.inputs], "outputs": [p.as_dict() for p in s.outputs]}
                for name, s in package.segments.items()
            },
            "hosts": {name: host.kind for name, host in package.hosts.items()},
            "steps": [step.as_dict() for step in package.steps],
            "results": list(package.results),
            "sections": sections,
            "info": package.info,
        }
    ).encode()
    metadata += b" " * (-len(metadata) % 8)
    size = _START + len(metadata) + len(body)
    header = _HEADER.pack(MAGIC, VERSION, size, package.configuration.fingerprint.encode(), len(metadata))
    return header + hashlib.sha256(header + metadata + body).digest() + metadata + body


def save(package: Package, path: Path) -> None:
    """Write the file, whole or not at all."""
    with atomic_write(path) as stream:
        stream.write(to_bytes(package))


def load(path: Path, configuration: Configuration | None = None) -> Any:
    """The executable of file `path`. Raises QccError where it is damaged or, given `configuration`, made for another accelerator."""
    from qcc.runtime.fpga.executable import FpgaExecutable

    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise QccError(f"cannot read {path}: {error.strerror or error}") from None
    return FpgaExecutable(from_bytes(data, str(path), configuration))


def from_bytes(data: bytes, name: str = "the accelerator file", configuration: Configuration | None = None) -> Package:
    """The package of a file's contents. Raises QccError for anything but what `to_bytes` made."""
    if len(data) < _START or data[:4] != MAGIC:
        raise QccError(f"{name} is neither a CPU artefact nor an accelerator file, expected one that qcc wrote")
    _, version, size, fingerprint, metadata_size = _HEADER.unpack(data[: _HEADER.size])
    if version != VERSION:
        raise QccError(f"{name} has format version {version}, expected {VERSION}; compile the model again with this qcc")
    if size != len(data) or metadata_size > len(data) - _START:
        raise QccError(f"{name} has {len(data)} bytes, its header says {size}; it is truncated or altered, compile the model again")
    if hashlib.sha256(data[: _HEADER.size] + data[_START:]).digest() != data[_HEADER.size : _START]:
        raise QccError(f"{name} is damaged: its checksum does not match its contents; compile the model again")
    try:
        metadata = json.loads(data[_START : _START + metadata_size])
        package = _package(metadata, data[_START + metadata_size :])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise QccError(f"{name} has metadata that this qcc cannot read ({type(error).__name__}: {error}); compile it again") from None
    if package.configuration.fingerprint.encode() != fingerprint:
        raise QccError(
            f"{name} is for configuration {fingerprint.decode(errors='replace')}, its metadata says "
            f"{package.configuration.fingerprint}; compile the model again"
        )
    if configuration is not None and configuration.fingerprint != package.configuration.fingerprint:
        raise QccError(
            f"{name} was compiled for another accelerator ({_difference(package.configuration, configuration)}); "
            "compile the model for this device"
        )
    package.check()
    return package


def _package(metadata: dict[str, Any], body: bytes) -> Package:
    sections = metadata["sections"]

    def section(name: str) -> bytes:
        offset, size = sections[name]
        if offset < 0 or size < 0 or offset + size > len(body):
            raise ValueError(f"section '{name}' lies outside the file")
        return body[offset : offset + size]

    segments: dict[str, Segment] = {}
    for name, found in metadata["segments"].items():
        words = tuple(decode_stream(section(f"stream:{name}")))
        layers = tuple(layer for layer, count in found["layers"] for _ in range(min(count, len(words))))
        if len(layers) != len(words):
            raise ValueError(f"segment '{name}' names layers for {len(layers)} of {len(words)} instructions")
        ports = [tuple(Port.from_dict(p) for p in found[key]) for key in ("inputs", "outputs")]
        segments[name] = Segment(words, layers, *ports)
    hosts: dict[str, Host] = {}
    for name, kind in metadata["hosts"].items():
        if kind not in HOST_KINDS:
            raise ValueError(f"host segment '{name}' is of kind '{kind}'")
        hosts[name] = Host(kind, section(f"host:{name}"))
    steps = tuple(Step(s["name"], tuple(s["inputs"]), tuple(s["outputs"]), tuple(s["dtypes"])) for s in metadata["steps"])
    return Package(
        Configuration.from_dict(metadata["configuration"]),
        metadata["arena_bytes"],
        section("weights"),
        segments,
        hosts,
        steps,
        tuple(metadata["results"]),
        metadata["info"],
    )


def _runs(names: tuple[str, ...]) -> list[list[Any]]:
    """Run-length coding of the layers' names."""
    runs: list[list[Any]] = []
    for name in names:
        if runs and runs[-1][0] == name:
            runs[-1][1] += 1
        else:
            runs.append([name, 1])
    return runs


def _difference(a: Configuration, b: Configuration) -> str:
    return ", ".join(f"{k} {v} instead of {b.to_dict()[k]}" for k, v in a.to_dict().items() if v != b.to_dict()[k])


def stream_bytes(package: Package) -> int:
    """Bytes of all instruction streams."""
    return sum(len(s.words) for s in package.segments.values()) * INSTRUCTION_BYTES
