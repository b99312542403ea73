"""Attention whose query heads share keys and values, however the model repeats them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention

import qcc
from test.tiers import slow_except


class Grouped(nn.Module):
    def __init__(self, way: str, causal: bool) -> None:
        super().__init__()
        self.way, self.causal = way, causal

    def forward(self, q: Any, k: Any, v: Any, mask: Any) -> Any:
        given = {"is_causal": True} if self.causal else {"attn_mask": mask}
        if self.way == "flag":
            return scaled_dot_product_attention(q, k, v, enable_gqa=True, **given)
        return scaled_dot_product_attention(q, self.repeated(k), self.repeated(v), **given)

    def repeated(self, x: Any) -> Any:
        if self.way == "interleave":
            return x.repeat_interleave(3, dim=1)
        b, heads, s, d = x.shape
        return x[:, :, None].expand(b, heads, 3, s, d).reshape(b, 3 * heads, s, d)


@pytest.mark.parametrize("way", slow_except(["flag", "interleave", "expand"], "expand"))
@pytest.mark.parametrize("queries", [1, 5])
@pytest.mark.parametrize("mask", slow_except(["heads", "each", "bool", "causal"], "bool"))
def test_grouped_attention(way: str, queries: int, mask: str) -> None:
    torch.manual_seed(2)
    q, k, v = torch.randn(2, 6, queries, 16), torch.randn(2, 2, 11, 16), torch.randn(2, 2, 11, 32)
    term = torch.randn(2, 6 if mask == "each" else 1, queries, 11)
    inputs = (q, k, v, term > -1 if mask == "bool" else term)
    model = Grouped(way, mask == "causal").eval()
    executable = qcc.compile(model, example_inputs=inputs, threads=1)
    torch.testing.assert_close(executable(*inputs), model(*inputs), rtol=1e-5, atol=1e-5)
    if mask != "causal" and queries == 1:
        moved = [step for step in executable.info["steps"] if step["codelet"].startswith("map") and step["bytes"] >= 2 * 4 * k.numel()]
        assert not moved, "no copy of keys or values for every query head"
