"""Take channels out that are constant or that nobody reads, so that a channel-pruned network becomes a smaller dense one.

Before:

    %a = qcc.conv2d %x, %w : tensor<1x64x8x8xi32>           // 32 of 64 output channels of %w are zero
    %q = qcc.requantize %a                                   // and so 32 channels of %q are the zero point
    %b = qcc.conv2d %q, %v

After:

    %a = qcc.conv2d %x, %w' : tensor<1x32x8x8xi32>
    %q = qcc.requantize %a'
    %b = qcc.conv2d %q, %v'                                  // without the weights for these inputs

A channel is *constant* where all weights that reach it are zero: its bias runs through requantize, activation, sum, pooling and tables as
the operations define them. A consuming product takes a constant into its bias, exactly; a padded convolution does so only for the
zero point, because outside of the image it reads that and not the constant. A channel whose readers all have zero weights for it is
not needed, whatever it holds. Sums, element-wise operations, pooling and data movement tie the channels of operands and
result: they leave together or stay (a residual sum loses the channels that are constant on both sides). Concatenation and flattening
map channels; a grouped convolution loses whole groups, a depthwise one channels. `granule`: channels are kept up to a multiple of it.

Requires: integer form (products may also be float).
Guarantees: integer results are bit for bit those of the larger network; float ones differ by the rounding of a bias at most. The
function's inputs and results keep their shapes. Facts per layer: channels, channels_removed, inputs_removed.
Why: He, Zhang, Sun, "Channel pruning for accelerating very deep neural networks", ICCV 2017; structured zeros are worth their fraction
only where the layer becomes smaller.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from qcc.dialects.mlir import ir, walk
from qcc.passes.base import Pass, PassContext
from qcc.passes.integer._channels.axes import channel_axes
from qcc.passes.integer._channels.constants import Constants
from qcc.passes.integer._channels.demand import Demand
from qcc.passes.integer._channels.products import NAMES, product
from qcc.passes.integer._channels.rewrite import Rewrite
from qcc.passes.values import erase_dead


@dataclass(frozen=True)
class Options:
    """`granule`: the number of channels that stays is a multiple of it, or all; what a dot product takes at once."""

    granule: int = 1


class RemoveZeroChannelsPass(Pass):
    """See the module's docstring."""

    name = "remove-zero-channels"
    Options = Options

    def run(self, module: ir.Module, context: PassContext) -> None:
        """Analyse and shrink every function of the model."""
        for function in walk(module, "func.func"):
            if function.regions[0].blocks and "qcc.generic" not in function.attributes:
                self._shrink(function, context)
        erase_dead(module)

    def _shrink(self, function: Any, context: PassContext) -> None:
        operations = [view.operation for view in function.regions[0].blocks[0].operations]
        axes = channel_axes(operations)
        products = {op: found for op in operations if op.name in NAMES and (found := product(op)) is not None}
        constants = Constants(operations, axes, products)
        demand = Demand(operations, axes, products, constants, self.options.granule)
        if all(bool(mask.all()) for mask in demand.needed.values()):
            return
        rewrite = Rewrite(demand)
        rewrite.run()
        for layer, outputs, _, outputs_removed, inputs_removed in rewrite.layers:
            if outputs_removed or inputs_removed:
                context.fact(layer, channels=outputs, channels_removed=outputs_removed, inputs_removed=inputs_removed)
