"""The compression methods of the literature as PyTorch parametrizations and layers, trained with straight-through estimators.

A *projection* maps a float weight to the nearest compressed one. While training, `Projected` returns the compressed weight and lets the
gradient through to the float one; `finish` then leaves nothing but plain tensors, as any other tool would: the compiler has to find out by
itself that a weight holds two numbers, or powers of two, or zeros in a pattern.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrize, prune

Projection = Callable[[Tensor], Tensor]
FP4 = torch.tensor([0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0])  # E2M1


def per_filter(values: Tensor, weight: Tensor) -> Tensor:
    """[out] values shaped to broadcast against a weight [out, ...]."""
    return values.reshape(-1, *[1] * (weight.dim() - 1))


def bwn(weight: Tensor) -> Tensor:
    """{-a, a} with a = mean |w| of each filter (Rastegari et al., ECCV 2016)."""
    return torch.where(weight >= 0, 1.0, -1.0) * per_filter(weight.abs().flatten(1).mean(1), weight)


def twn(weight: Tensor) -> Tensor:
    """{-a, 0, a} of each filter: threshold 0.7 mean |w|, a = mean of what is above (Li, Zhang, Liu, 2016)."""
    size = weight.abs().flatten(1)
    large = size > 0.7 * size.mean(1, keepdim=True)
    amplitude = (size * large).sum(1) / large.sum(1).clamp(min=1)
    return weight.sign() * large.reshape(weight.shape) * per_filter(amplitude, weight)


def lognet(weight: Tensor) -> Tensor:
    """0 and +-2^e with seven exponents below the greatest: 4 bits (Miyashita, Lee, Murmann, 2016)."""
    top = weight.abs().max().log2().round()
    exponent = weight.abs().clamp(min=1e-30).log2().round()
    return torch.where(exponent > top - 7, weight.sign() * torch.exp2(exponent.clamp(max=top)), 0.0)


def fp8(weight: Tensor) -> Tensor:
    """E4M3 times one scale (Micikevicius et al., 2022)."""
    scale = weight.abs().max() / 448
    return (weight / scale).to(torch.float8_e4m3fn).float() * scale


def fp4(weight: Tensor) -> Tensor:
    """E2M1 times a scale for each filter."""
    scale = per_filter(weight.abs().flatten(1).amax(1) / 6, weight)
    nearest = (weight.abs() / scale).unsqueeze(-1).sub(FP4).abs().argmin(-1)
    return weight.sign() * FP4[nearest] * scale


def sharing(levels: int) -> Callable[[Tensor], Projection]:
    """The nearest of `levels` centroids, found once by k-means (Han, Mao, Dally, ICLR 2016)."""

    def start(weight: Tensor) -> Projection:
        values = weight.detach().flatten().numpy().astype(np.float64)
        centroids = np.linspace(values.min(), values.max(), levels)
        for _ in range(20):
            nearest = np.abs(values[:, None] - centroids).argmin(1)
            sums, counts = np.bincount(nearest, values, levels), np.bincount(nearest, minlength=levels)
            centroids = np.where(counts > 0, sums / np.maximum(counts, 1), centroids)
        table = torch.tensor(np.sort(centroids), dtype=torch.float32)
        return lambda w: table[(w.unsqueeze(-1) - table).abs().argmin(-1)]

    return start


class Projected(nn.Module):
    """Parametrization of a weight by a projection; gradients go to the float weight."""

    def __init__(self, projection: Projection) -> None:
        super().__init__()
        self.projection = projection

    def forward(self, weight: Tensor) -> Tensor:
        return (self.projection(weight) - weight).detach() + weight if self.training else self.projection(weight)


class TrainedTernary(nn.Module):
    """{-n, 0, p} with learned n and p (TTQ, Zhu et al., ICLR 2017); the threshold is 0.05 max |w|."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.positive = nn.Parameter(weight[weight > 0].mean().detach().clone())
        self.negative = nn.Parameter(-weight[weight < 0].mean().detach().clone())

    def forward(self, weight: Tensor) -> Tensor:
        threshold = 0.05 * weight.abs().max()
        ternary = (weight > threshold) * self.positive - (weight < -threshold) * self.negative
        return ternary + (weight - weight.detach()) if self.training else ternary


class Sign(nn.Module):
    """-1 or 1 (0 for 0), whose gradient is that of hard tanh."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return torch.sign(x)
        clipped = x.clamp(-1, 1)
        return (torch.sign(x) - clipped).detach() + clipped


class XnorConv(nn.Module):
    """XNOR-Net: sign(x) * binary weights, times the mean |x| under the window (one scale per position)."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.sign, self.conv = Sign(), conv

    def forward(self, x: Tensor) -> Tensor:
        scale = functional.avg_pool2d(x.abs().mean(1, keepdim=True), self.conv.kernel_size[0], 1, self.conv.kernel_size[0] // 2)
        return self.conv(self.sign(x)) * scale


class XnorLinear(nn.Module):
    """The same for a linear layer, one scale per sample."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.sign, self.linear = Sign(), linear

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.sign(x)) * x.abs().mean(1, keepdim=True)


class LogActivation(nn.Module):
    """0 and 2^e for e from -6 to 0 of a rectified activation: LogNet's 3 bits and zero."""

    def forward(self, x: Tensor) -> Tensor:
        exponent = x.clamp(min=2.0**-30).log2().round()
        power = torch.exp2(exponent.clamp(max=0.0))
        y = power * (exponent >= -6).float()
        return (y - x).detach() + x if self.training else y


class Fp8Activation(nn.Module):
    """E4M3 of an activation, no scale."""

    def forward(self, x: Tensor) -> Tensor:
        y = x.clamp(-448, 448).to(torch.float8_e4m3fn).to(torch.float32)
        return (y - x).detach() + x if self.training else y


def two_of_four(weight: Tensor) -> Tensor:
    """Mask that keeps the two greatest of every four input channels."""
    last = weight.abs().movedim(1, -1)
    groups = last.reshape(-1, 4)
    kept = torch.zeros_like(groups).scatter_(1, groups.topk(2, dim=1).indices, 1.0)
    return kept.reshape(last.shape).movedim(-1, 1)


def greatest(fraction: float) -> Projection:
    """Mask that keeps the greatest `fraction` of all weights."""

    def mask(weight: Tensor) -> Tensor:
        threshold = weight.abs().flatten().kthvalue(int((1 - fraction) * weight.numel())).values
        return (weight.abs() > threshold).float()

    return mask


def kernel_patterns(weight: Tensor) -> Tensor:
    """Mask that keeps four of nine taps of every 3x3 kernel: the centre and one of the eight commonest choices of three (PCONV, 2020)."""
    if weight.dim() != 4:
        return two_of_four(weight)
    size = weight.abs().flatten(2)  # [out, in, 9]
    choices = [torch.zeros(9).index_fill_(0, torch.tensor([4, *three]), 1.0) for three in combinations([0, 1, 2, 3, 5, 6, 7, 8], 3)]
    masks = torch.stack(choices)  # [56, 9]
    best = (size @ masks.T).argmax(-1)
    common = masks[best.flatten().bincount(minlength=len(masks)).topk(8).indices]
    return common[(size @ common.T).argmax(-1)].reshape(weight.shape)


def one_tap(weight: Tensor) -> Tensor:
    """Mask that keeps one tap per input channel, the one with the greatest norm: shift attention layer (Hacene et al., 2019)."""
    if weight.dim() != 4:
        return torch.ones_like(weight)
    norms = weight.square().sum(0).flatten(1)  # [in, taps]
    mask = torch.zeros_like(norms).scatter_(1, norms.argmax(1, keepdim=True), 1.0)
    return mask.reshape(1, *weight.shape[1:]).expand_as(weight).contiguous()


def half_of_filters(weight: Tensor) -> Tensor:
    """Mask that keeps the half of the filters with the greatest norm (Li et al., ICLR 2017)."""
    norms = weight.flatten(1).norm(dim=1)
    kept = (norms > norms.median()).float()
    return per_filter(kept, weight).expand_as(weight).contiguous()


def svd_linear(layer: nn.Linear, rank: int) -> nn.Sequential:
    """The best approximation by two linear layers (Denton et al., NIPS 2014)."""
    u, s, v = torch.linalg.svd(layer.weight.detach(), full_matrices=False)
    first, second = nn.Linear(layer.in_features, rank, bias=False), nn.Linear(rank, layer.out_features)
    root = s[:rank].sqrt()
    first.weight.data, second.weight.data = root[:, None] * v[:rank], u[:, :rank] * root
    second.bias.data = layer.bias.detach().clone()
    return nn.Sequential(first, second)


def tucker_conv(layer: nn.Conv2d, ranks: tuple[int, int]) -> nn.Sequential:
    """1x1, 3x3, 1x1 by Tucker-2 of the input and output channels (Kim et al., ICLR 2016)."""
    weight, (inside, outside) = layer.weight.detach(), ranks
    u = torch.linalg.svd(weight.flatten(1), full_matrices=False)[0][:, :outside]  # [out, r]
    v = torch.linalg.svd(weight.transpose(0, 1).flatten(1), full_matrices=False)[0][:, :inside]  # [in, r]
    core = torch.einsum("oihw,or,is->rshw", weight, u, v)
    parts = [
        nn.Conv2d(layer.in_channels, inside, 1, bias=False),
        nn.Conv2d(inside, outside, layer.kernel_size[0], padding=layer.padding[0], bias=False),
        nn.Conv2d(outside, layer.out_channels, 1, bias=layer.bias is not None),
    ]
    parts[0].weight.data, parts[1].weight.data, parts[2].weight.data = v.T[..., None, None], core, u[..., None, None]
    if layer.bias is not None and parts[2].bias is not None:
        parts[2].bias.data = layer.bias.detach().clone()
    return nn.Sequential(*parts)


def finish(model: nn.Module) -> nn.Module:
    """The trained model with plain weights, in evaluation mode."""
    model.eval()
    for module in model.modules():
        if parametrize.is_parametrized(module):
            parametrize.remove_parametrizations(module, "weight", leave_parametrized=True)
        if hasattr(module, "weight_mask"):
            prune.remove(module, "weight")
    return model
