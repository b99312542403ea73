"""The comparison with other systems: what it computes from measured blocks, and that every peer and comparison is well formed."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("torch")  # the models are torch's

from benchmarks import all as every
from benchmarks import files, run, table
from benchmarks.peers import PRECISIONS, all_peers, reason_to_skip
from test.e2e import models


def result(**peers: list[float] | str) -> dict[str, Any]:
    """A result with the given blocks (ms) or errors per peer."""
    found = {
        name: {"error": blocks}
        if isinstance(blocks, str)
        else {"median_ms": sorted(blocks)[len(blocks) // 2], "least_ms": min(blocks), "blocks_median_ms": blocks, "relative_error": 0.01}
        for name, blocks in peers.items()
    }
    machine = {"cpu": "a CPU", "flags": "avx2 avx512f fxsr", "processors": 2, "system": "Linux"}
    return {"model": "m", "precision": "int8", "batch": 1, "threads": 1, "cpu": "native", "machine": machine, "peers": found}


def test_a_ratio_is_of_neighbouring_blocks() -> None:
    drifting = result(qcc_int8=[1.0, 2.0, 10.0], fast=[2.0, 4.0, 20.0], slow=[3.0, 6.0, 30.0])
    assert run.best_peer(drifting) == "fast"
    assert table.against_best(drifting) == 0.5


def test_the_page_has_medians_ratios_and_reasons() -> None:
    page = table.page([result(qcc_int8=[1.0, 1.0, 1.0], other=[2.0, 2.0, 2.0], broken="it fell over")])
    assert "| m | 1 (0.010) | 2 (0.010) | other | 0.50 |" in page
    assert "not measured: broken: it fell over (m)" in page
    assert "avx2, avx512f." in page


def test_a_page_without_qcc_has_no_ratio() -> None:
    page = table.page([result(qcc_int8="no", other=[2.0])])
    assert "| m | 2 (0.010) | other | - |" in page


def test_streams_are_measured_against_the_memory() -> None:
    """6 ms for 60 MB at 12 GB/s is 1.2 times as long as the memory needs."""
    one = result(qcc_w8=[5.0, 6.0, 7.0], other=[12.0, 12.0, 12.0])
    one |= {"precision": "w8", "memory_gbytes_per_s": [12.0, 12.0, 12.0]}
    one["peers"]["qcc_w8"]["about"] = {"weight bytes": 60_000_000, "stored": "int8"}
    assert run.of_memory(one, one["peers"]["qcc_w8"]) == pytest.approx(1.2)
    assert run.of_memory(one, one["peers"]["other"]) is None
    assert "| m | int8 | 1 | 60.0 | 6 | 12.0 | **1.20** | 0.50 | other 12 |" in table.page([one])


def test_every_peer_is_well_formed() -> None:
    for name, peer in all_peers().items():
        assert peer.precision in PRECISIONS and peer.needs and peer.load().__name__ == name
        assert all(kind in files.MAKERS or kind in models.MAKERS for kind in peer.files)
        assert all(model in models.MODELS | models.CHAINS for model in peer.only)


def test_a_peer_that_cannot_be_held_to_an_instruction_set_says_so() -> None:
    runtime = all_peers()["onnxruntime_int8"]
    assert reason_to_skip(runtime, "x86-64-v3", "avx2 avx512f") == "cannot be told to use AVX2 only"
    assert reason_to_skip(runtime, "native", "avx2 avx512f") is None


def test_every_comparison_has_a_model_and_peers() -> None:
    for one in every.COMPARISONS:
        assert one.model in models.MODELS | models.CHAINS
        assert any(peer.module == "qcc" for peer in run.peers_of(one.precision, one.model))
