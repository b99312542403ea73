"""The qisa dialect: one operation per accelerator instruction, derived from the table in `runtime/fpga/isa.py`."""

from qcc.dialects.mlir import ext


class Qisa(ext.Dialect, name="qisa"):
    """The instruction stream of the accelerator."""
