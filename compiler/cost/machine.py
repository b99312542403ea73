"""Machine descriptions and the time they predict for a layer: the larger of arithmetic and traffic (roofline).

S. Williams, A. Waterman, D. Patterson, "Roofline", CACM 2009. The rates are what one core sustains in a well-blocked loop, not peaks.
"""

from __future__ import annotations

from dataclasses import dataclass

from qcc.compiler.cost.layers import LayerCount


@dataclass(frozen=True)
class Machine:
    """One core: multiply-accumulates per nanosecond by kind, bytes per nanosecond by level, and the cost of starting a step."""

    name: str
    int8_gmacs: float
    fp32_gmacs: float
    elementwise_gbytes: float
    dram_gbytes: float
    step_ns: float = 500.0

    def predict_us(self, layer: LayerCount) -> float:
        """Microseconds of one layer on one core."""
        rate = self.fp32_gmacs if layer.weight_bits == 0 and layer.activation_bits > 16 else self.int8_gmacs
        compute = layer.macs / rate
        traffic = layer.weight_bytes / self.dram_gbytes + (layer.input_bytes + layer.output_bytes) / self.elementwise_gbytes
        return (max(compute, traffic) + self.step_ns) / 1000


DEFAULTS = {
    "avx512_vnni": Machine("avx512_vnni", int8_gmacs=140.0, fp32_gmacs=35.0, elementwise_gbytes=8.0, dram_gbytes=10.0),
    "avx512": Machine("avx512", int8_gmacs=70.0, fp32_gmacs=35.0, elementwise_gbytes=8.0, dram_gbytes=10.0),
    "avx_vnni": Machine("avx_vnni", int8_gmacs=110.0, fp32_gmacs=35.0, elementwise_gbytes=6.0, dram_gbytes=10.0),
    "avx2": Machine("avx2", int8_gmacs=60.0, fp32_gmacs=35.0, elementwise_gbytes=6.0, dram_gbytes=10.0),
    "generic": Machine("generic", int8_gmacs=20.0, fp32_gmacs=12.0, elementwise_gbytes=4.0, dram_gbytes=10.0),
}
