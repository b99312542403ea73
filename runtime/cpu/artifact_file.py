"""The file of a CPU artefact: an ELF shared object with its metadata in one section and a checksum behind its end.

The trailer is 48 bytes: magic "QCCSEAL1", the size of what is before it (u64, little endian), and its SHA-256. The system's loader ignores
bytes behind the last section, so the file stays an ordinary shared object; `check` runs before anything in it is trusted.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import struct
from pathlib import Path
from typing import Any

from qcc.dialects.errors import QccError

FORMAT_VERSION = 1
METADATA_SECTION = ".qcc.metadata"
ELF_MAGIC = b"\x7fELF"
_SEAL_MAGIC = b"QCCSEAL1"
_SEAL = struct.Struct("<8sQ32s")
_MACHINES = {62: "x86-64", 183: "aarch64", 243: "riscv"}


def seal(body: bytes) -> bytes:
    """`body` with its trailer."""
    return body + _SEAL.pack(_SEAL_MAGIC, len(body), hashlib.sha256(body).digest())


def check(path: Path) -> dict[str, Any]:
    """Metadata of the artefact at `path`.

    Raises QccError where the file is missing, not an artefact, truncated, altered, of another version or for another architecture.
    """
    data = _mapped(path)
    if bytes(data[:4]) != ELF_MAGIC:
        raise QccError(
            f"{path} is not a CPU artefact: it begins with {data[:4].hex() or 'nothing'}, expected an ELF shared object made by qcc"
        )
    body = _unsealed(path, data)
    section = elf_section(body, METADATA_SECTION)
    if section is None:
        raise QccError(f"{path} has no section '{METADATA_SECTION}', expected an artefact made by qcc")
    try:
        info: Any = json.loads(section.rstrip(b"\0"))
    except ValueError:
        info = None
    if not isinstance(info, dict):
        raise QccError(f"{path} has metadata that cannot be read; compile the model again")
    if info.get("format_version") != FORMAT_VERSION:
        raise QccError(f"{path} has format version {info.get('format_version')}, expected {FORMAT_VERSION}; compile the model again")
    _check_machine(path, body)
    return info


def _mapped(path: Path) -> memoryview:
    """The file's bytes, without a copy of its weights: they are in the memory that the system's loader will share."""
    try:
        with path.open("rb") as file:
            return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if os.fstat(file.fileno()).st_size else b"")
    except OSError as error:
        raise QccError(f"cannot read artefact {path}: {error.strerror or error}") from None


def _unsealed(path: Path, data: memoryview) -> memoryview:
    again = "compile the model again, or copy the file again"
    if len(data) < _SEAL.size or bytes(data[-_SEAL.size :][:8]) != _SEAL_MAGIC:
        raise QccError(f"artefact {path} is truncated or was not made by qcc: its checksum is missing; {again}")
    _, size, digest = _SEAL.unpack(data[-_SEAL.size :])
    body = data[: -_SEAL.size]
    if size != len(body):
        raise QccError(f"artefact {path} is truncated: found {len(body)} bytes, expected {size}; {again}")
    if hashlib.sha256(body).digest() != digest:
        raise QccError(f"artefact {path} was altered: its checksum does not fit; {again}")
    return body


def _check_machine(path: Path, body: memoryview) -> None:
    import platform

    machine = _MACHINES.get(struct.unpack_from("<H", body, 18)[0], "an unknown machine")
    here = {"amd64": "x86-64", "x86_64": "x86-64", "arm64": "aarch64"}.get(platform.machine().lower(), platform.machine())
    if machine != here:
        raise QccError(f"artefact {path} is for {machine}, expected {here}; compile the model on or for this machine")


def elf_section(data: bytes | memoryview, name: str) -> bytes | None:
    """Contents of section `name` of a 64-bit little-endian ELF file, or None. Bounds are checked; damage gives None."""
    try:
        if bytes(data[4:6]) != b"\x02\x01":
            return None
        (table,) = struct.unpack_from("<Q", data, 0x28)
        entry_bytes, count, names_index = struct.unpack_from("<HHH", data, 0x3A)
        headers = [struct.unpack_from("<IIQQQQ", data, table + i * entry_bytes) for i in range(count)]
        _, _, _, _, names, names_bytes = headers[names_index]
        strings = bytes(data[names : names + names_bytes])
        for offset, _, _, _, start, size in headers:
            if strings[offset : strings.index(b"\0", offset)] == name.encode():
                return bytes(data[start : start + size])
    except (struct.error, IndexError, ValueError, OverflowError):
        return None
    return None
