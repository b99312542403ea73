"""Layers for quantization-aware training, written out in plain PyTorch.

While training, a quantizer rounds in the forward pass and lets the gradient through (straight-through estimator); its step size is learned
(LSQ, Esser et al., ICLR 2020). `freeze()` then turns every weight into stored integers and every quantizer into
`quantized_decomposed.quantize_* / dequantize_*` operations, whose `quant_min` and `quant_max` tell the compiler the width:
[-8, 7] is 4 bits, [-2, 1] is 2 bits, [-1, 1] is ternary, or binary where no weight is 0.
"""

from __future__ import annotations

import torch
import torch.ao.quantization.fx._decomposed  # registers torch.ops.quantized_decomposed
from torch import Tensor, nn

ops = torch.ops.quantized_decomposed


def round_through(x: Tensor) -> Tensor:
    """round(x) whose gradient is that of x."""
    return (x.round() - x).detach() + x


def scale_gradient(x: Tensor, factor: float) -> Tensor:
    """x with its gradient multiplied by `factor`."""
    return (x - x * factor).detach() + x * factor


def to_binary32(x: float) -> float:
    """The nearest number that ONNX and MLIR also store exactly, since their scales are binary32."""
    return float(torch.tensor(x, dtype=torch.float32))


class Quantizer(nn.Module):
    """Per-tensor quantization of an activation to `bits` bits.

    signed: stored range [-2^(b-1), 2^(b-1) - 1], zero point 0. unsigned: [0, 2^b - 1]; `asymmetric` then gives it a zero point, found
    from the first batch. `scale` fixes the step size instead of learning it.
    """

    def __init__(self, bits: int, *, signed: bool = False, asymmetric: bool = False, scale: float | None = None) -> None:
        super().__init__()
        self.qmin, self.qmax = (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if signed else (0, (1 << bits) - 1)
        self.dtype = torch.int8 if signed else torch.uint8
        self.asymmetric = asymmetric
        self.scale = nn.Parameter(torch.tensor(scale or 1.0), requires_grad=scale is None)
        self.zero_point = 0
        self.calibrated = scale is not None
        self.enabled = True  # False: pass values through, for training in float
        self.frozen_scale: float | None = None

    def calibrate(self, x: Tensor) -> None:
        """Step size and zero point from a first batch: cover all but the largest 0.1 % of its values."""
        with torch.no_grad():
            low, high = x.flatten().quantile(torch.tensor([0.001, 0.999]))
            if self.asymmetric:
                scale = (high - low) / (self.qmax - self.qmin)
                self.zero_point = int((self.qmin - low / scale).round().clamp(self.qmin, self.qmax))
            else:
                scale = torch.maximum(high / self.qmax, low / self.qmin if self.qmin else high / self.qmax)
            self.scale.copy_(scale.clamp(min=1e-6))
        self.calibrated = True

    def freeze(self) -> None:
        self.frozen_scale = to_binary32(self.scale.abs().item())
        del self.scale

    def forward(self, x: Tensor) -> Tensor:
        if self.frozen_scale is not None:
            parameters = (self.frozen_scale, self.zero_point, self.qmin, self.qmax, self.dtype)
            return ops.dequantize_per_tensor(ops.quantize_per_tensor(x, *parameters), *parameters)
        if not self.enabled:
            return x
        if not self.calibrated:
            self.calibrate(x)
        scale = scale_gradient(self.scale.abs(), (x.numel() * self.qmax) ** -0.5)
        return (round_through((x / scale).clamp(self.qmin - self.zero_point, self.qmax - self.zero_point))) * scale


class WeightQuantizer(nn.Module):
    """Per-output-channel quantization of a weight [out, ...]; `bits` is 2 to 8, "binary" or "ternary".

    binary: {-a, a} with a = mean |w| (BWN, Rastegari et al. 2016). ternary: {-a, 0, a} with threshold 0.7 mean |w| (TWN, Li et al. 2016).
    `prune` removes weights by magnitude: a fraction of all of them (0.8), or "2:4" (two of every four along the input axis).
    """

    def __init__(self, weight: Tensor, bits: int | str, prune: float | str | None = None) -> None:
        super().__init__()
        self.bits, self.prune = bits, prune
        self.qmin, self.qmax = (-1, 1) if isinstance(bits, str) else (-(1 << (bits - 1)), (1 << (bits - 1)) - 1)
        self.mask: Tensor | None = None
        self.enabled = True
        self.column = (-1, *[1] * (weight.dim() - 1))  # shape that broadcasts one value per output channel
        self.scale = nn.Parameter(torch.ones(len(weight)), requires_grad=isinstance(bits, int))

    def start(self, weight: Tensor) -> None:
        """Begin quantizing `weight`: LSQ's first step size, and which weights of a pruned layer stay."""
        self.enabled = True
        with torch.no_grad():
            self.scale.copy_(2 * weight.flatten(1).abs().mean(1) / self.qmax**0.5)
        magnitude = weight.detach().abs()
        if self.prune == "2:4":
            groups = magnitude.flatten(1).reshape(-1, 4)
            kept = torch.zeros_like(groups).scatter_(1, groups.topk(2, dim=1).indices, 1.0)
            self.mask = kept.reshape(weight.shape)
        elif self.prune is not None:
            threshold = magnitude.flatten().kthvalue(int(float(self.prune) * weight.numel())).values
            self.mask = (magnitude > threshold).float()

    def integers(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """(stored integers as float, scale per output channel [out])."""
        if self.mask is not None:
            weight = weight * self.mask
        size = weight.flatten(1).abs()
        if self.bits == "binary":
            return torch.where(weight >= 0, 1.0, -1.0), size.mean(1)
        if self.bits == "ternary":
            large = size > 0.7 * size.mean(1, keepdim=True)
            return weight.sign() * large.reshape(weight.shape), (size * large).sum(1) / large.sum(1).clamp(min=1)
        scale = scale_gradient(self.scale.abs(), (weight[0].numel() * self.qmax) ** -0.5)
        return round_through((weight / scale.reshape(self.column)).clamp(self.qmin, self.qmax)), scale

    def forward(self, weight: Tensor) -> Tensor:
        if not self.enabled:
            return weight
        stored, scale = self.integers(weight)
        quantized = stored * scale.reshape(self.column)
        return (quantized - weight).detach() + weight if isinstance(self.bits, str) else quantized


class _Quantized(nn.Module):
    """What QConv2d and QLinear share: a float weight to train, or stored integers once frozen.

    `source` is the quantizer of the layer's input. With it the bias is rounded to the accumulator's step when frozen, so that
    integer arithmetic represents it exactly.
    """

    weight: Tensor
    bias: Tensor | None

    def _set_up(self, bits: int | str, prune: float | str | None, source: Quantizer) -> None:
        self.quantize_weight = WeightQuantizer(self.weight, bits, prune)
        self.__dict__["source"] = source  # not a submodule: it belongs to whoever made it
        self.frozen = False

    def freeze(self, norm: nn.BatchNorm2d | None = None) -> None:
        """Store integers; `norm`, a batch norm that follows with positive gamma, is folded into the scales and the bias."""
        with torch.no_grad():
            stored, scale = self.quantize_weight.integers(self.weight)
            bias = self.bias
            if norm is not None:
                factor = norm.weight / torch.sqrt(norm.running_var + norm.eps)
                assert bool((factor > 0).all()), "a negative gamma does not fold into a scale"
                scale, bias = scale * factor, norm.bias - norm.running_mean * factor
            step = self.__dict__["source"].frozen_scale * scale
            low, high = self.quantize_weight.qmin, self.quantize_weight.qmax
        del self.weight, self.bias, self.quantize_weight
        self.register_buffer("weight", stored.to(torch.int8))
        self.register_buffer("scale", scale.detach().clone())
        self.register_buffer("zero_point", torch.zeros(len(scale), dtype=torch.int64))
        self.register_buffer("bias", None if bias is None else ((bias / step).round() * step).detach().clone())
        self.range, self.frozen = (low, high), True

    def real_weight(self) -> Tensor:
        if self.frozen:
            return ops.dequantize_per_channel(self.weight, self.scale, self.zero_point, 0, *self.range, torch.int8)
        return self.quantize_weight(self.weight)


class QConv2d(_Quantized, nn.Conv2d):
    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        *,
        bits: int | str,
        source: Quantizer,
        prune: float | str | None = None,
        stride: int = 1,
        groups: int = 1,
        bias: bool = False,
    ) -> None:
        nn.Conv2d.__init__(self, inputs, outputs, kernel, stride, 0 if kernel == stride else kernel // 2, groups=groups, bias=bias)
        self._set_up(bits, prune, source)

    def forward(self, x: Tensor) -> Tensor:
        return torch.conv2d(x, self.real_weight(), self.bias, self.stride, self.padding, self.dilation, self.groups)


class QLinear(_Quantized, nn.Linear):
    def __init__(self, inputs: int, outputs: int, *, bits: int | str, source: Quantizer, prune: float | str | None = None) -> None:
        nn.Linear.__init__(self, inputs, outputs)
        self._set_up(bits, prune, source)

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x, self.real_weight(), self.bias)


class QConvNorm(nn.Module):
    """Convolution and batch norm. `fold` merges the norm when frozen; otherwise it stays in the exported graph."""

    def __init__(self, inputs: int, outputs: int, kernel: int, *, fold: bool = True, **options: object) -> None:
        super().__init__()
        self.conv = QConv2d(inputs, outputs, kernel, **options)  # type: ignore[arg-type]
        self.norm: nn.BatchNorm2d | None = nn.BatchNorm2d(outputs)
        self.fold = fold

    def freeze(self) -> None:
        norm = self.norm
        assert norm is not None
        self.conv.freeze(norm if self.fold else None)
        if self.fold:
            self.norm = None
            return
        with torch.no_grad():  # whoever folds the norm later must find a bias that the accumulator can hold exactly
            factor = norm.weight / torch.sqrt(norm.running_var + norm.eps)
            step = self.conv.__dict__["source"].frozen_scale * self.conv.scale * factor
            bias = norm.bias - norm.running_mean * factor
            norm.bias += (bias / step).round() * step - bias

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        return y if self.norm is None else self.norm(y)


def disable(model: nn.Module) -> None:
    """Let every quantizer of `model` pass its values through."""
    for module in model.modules():
        if isinstance(module, Quantizer | WeightQuantizer):
            module.enabled = False


def enable(model: nn.Module) -> None:
    """Start quantizing and pruning a model that was trained in float."""
    for module in model.modules():
        if isinstance(module, Quantizer):
            module.enabled = True
        elif isinstance(module, _Quantized):
            module.quantize_weight.start(module.weight)


def freeze(model: nn.Module) -> nn.Module:
    """The trained `model` with all its quantizers and layers frozen, in evaluation mode."""
    model.eval()
    modules = list(model.modules())
    for kind in (Quantizer, QConvNorm, QConv2d, QLinear):  # bias rounding needs the input's scale; a norm freezes its own convolution
        for module in modules:
            if isinstance(module, kind) and not getattr(module, "frozen", False):
                module.freeze()
    return model
