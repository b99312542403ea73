"""Damaged CPU artefacts: an error that says so, never a crash, never a wrong answer."""

from __future__ import annotations

import json
import struct
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given
from hypothesis import strategies as st

import qcc
from qcc.compiler.emit import program
from qcc.compiler.targets.cpu import CpuTarget
from qcc.dialects.errors import QccError
from qcc.runtime.cpu import artifact_file
from test.tiers import draws

sys.path.insert(0, str(Path(__file__).parents[1] / "runtime" / "cpu"))
import tiny

MANY = draws(150, suppress_health_check=[HealthCheck.function_scoped_fixture])


class Sound(bytes):
    """An undamaged file; not printed when a test fails."""

    def __repr__(self) -> str:
        return f"<artefact of {len(self)} bytes>"


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("sound") / "tiny.so"
    program.executable(tiny.llvm_module(), CpuTarget()).save(path)
    return Sound(path.read_bytes())


def refused(tmp_path: Path, data: bytes) -> str:
    path = tmp_path / "damaged.so"
    path.write_bytes(data)
    with pytest.raises(QccError) as caught:
        qcc.load(path)
    return str(caught.value)


@MANY
@given(where=st.integers(0, 10**9), value=st.integers(1, 255))
def test_any_changed_byte_is_found(sound: bytes, tmp_path: Path, where: int, value: int) -> None:
    data = bytearray(sound)
    data[where % len(data)] ^= value
    refused(tmp_path, bytes(data))


@MANY
@given(size=st.integers(0, 10**9))
def test_any_truncation_is_found(sound: bytes, tmp_path: Path, size: int) -> None:
    refused(tmp_path, sound[: size % len(sound)])


@MANY
@given(extra=st.binary(min_size=1, max_size=100))
def test_anything_behind_the_end_is_found(sound: bytes, tmp_path: Path, extra: bytes) -> None:
    refused(tmp_path, sound + extra)


@MANY
@given(cut=st.integers(0, 10**9), length=st.integers(1, 5000))
def test_a_missing_middle_is_found(sound: bytes, tmp_path: Path, cut: int, length: int) -> None:
    start = cut % (len(sound) - 1)
    refused(tmp_path, sound[:start] + sound[start + length :])


@MANY
@given(data=st.binary(max_size=400))
def test_arbitrary_bytes(tmp_path: Path, data: bytes) -> None:
    refused(tmp_path, artifact_file.ELF_MAGIC + data)
    refused(tmp_path, artifact_file.seal(artifact_file.ELF_MAGIC + data))


@MANY
@given(data=st.binary(max_size=300), name=st.sampled_from([".qcc.metadata", "", ".text"]))
@example(data=bytes(34) + b"\xff" * 8 + bytes(10) + b"\x40\x00\x01\x00\x00\x00", name="")  # a table where no address is
def test_sections_of_arbitrary_bytes(data: bytes, name: str) -> None:
    found = artifact_file.elf_section(b"\x7fELF\x02\x01" + data, name)
    assert found is None or isinstance(found, bytes)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(QccError, match=r"cannot read artefact .*nothing.so: No such file"):
        qcc.load(tmp_path / "nothing.so")


def test_a_folder(tmp_path: Path) -> None:
    with pytest.raises(QccError, match=r"cannot read artefact"):
        qcc.load(tmp_path)


def test_an_ordinary_shared_object(tmp_path: Path) -> None:
    from qcc.runtime.cpu import loader

    assert "was not made by qcc" in refused(tmp_path, loader.library_path(loader.RUNTIME_LIBRARY).read_bytes())


def test_a_truncated_one_says_so(sound: bytes, tmp_path: Path) -> None:
    assert "is truncated or was not made by qcc" in refused(tmp_path, sound[: len(sound) // 2])


def test_an_altered_one_says_so(sound: bytes, tmp_path: Path) -> None:
    data = bytearray(sound)
    data[5000] ^= 1
    assert "was altered: its checksum does not fit" in refused(tmp_path, bytes(data))


def resealed(sound: bytes, change: Any) -> bytes:
    """`sound` with its metadata changed in place (same length) and a checksum that fits."""
    body = bytearray(sound[:-48])
    section = artifact_file.elf_section(bytes(body), artifact_file.METADATA_SECTION)
    assert section is not None
    start = bytes(body).index(section)
    changed = change(section)
    assert len(changed) == len(section)
    body[start : start + len(section)] = changed
    return artifact_file.seal(bytes(body))


def test_another_format_version(sound: bytes, tmp_path: Path) -> None:
    data = resealed(sound, lambda text: text.replace(b'"format_version": 1', b'"format_version": 9'))
    assert "has format version 9, expected 1; compile the model again" in refused(tmp_path, data)


def test_metadata_that_is_not_json(sound: bytes, tmp_path: Path) -> None:
    assert "metadata" in refused(tmp_path, resealed(sound, lambda text: b"?" * len(text)))


def test_another_architecture(sound: bytes, tmp_path: Path) -> None:
    body = bytearray(sound[:-48])
    struct.pack_into("<H", body, 18, 183)
    assert "is for aarch64, expected x86-64" in refused(tmp_path, artifact_file.seal(bytes(body)))


def test_the_sound_one_loads(sound: bytes, tmp_path: Path) -> None:
    path = tmp_path / "sound.so"
    path.write_bytes(sound)
    x = np.ones((4, 16), np.float32)
    assert np.array_equal(qcc.load(path)(x), x - 2.5)
    assert json.dumps(qcc.load(path).info)
