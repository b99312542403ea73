"""Real architectures compile, equal the reference layer by layer, and are no further from float than who quantized them.

The test command runs one file of three models; `python -m test.e2e.accuracy` runs all of them in all three kinds.
"""

import pytest

import qcc
from qcc.compiler import report

from . import models
from .accuracy import check

# Rounding ties and the order of binary32 sums differ between systems, and a random network amplifies them: the same figures on other
# inputs move by this much for either system.
ERROR_MARGIN = 1.05


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "kind", "integers_only"), [("resnet18", "onnx", True), ("mobilenetv2", "pt2", True), ("encoder", "onnx", False)]
)
def test_model_equals_the_reference_and_is_as_good_as_its_maker(name: str, kind: str, integers_only: bool) -> None:
    found = check(name, kind)
    assert found["exact"], found["verdict"]
    assert found["qcc_error"] <= ERROR_MARGIN * found["maker_error"]
    if integers_only:
        assert found["kept_differs_by"] == 0 and found["since_input_sqnr_db"] is None
    else:  # a float layer rounds in its own way and moves a few quantized values by one step
        assert found["kept_differs_by"] < 0.05 and (found["since_input_sqnr_db"] or 100) > 25


@pytest.mark.slow
def test_resnet18_compiles_to_an_accelerator_stream() -> None:
    executable = qcc.compile(models.path("resnet18", "onnx"), target="fpga")
    convolutions = {row["name"] for row in executable.report["layers"] if row["op"] == "conv2d"}
    assert len(convolutions) == 20
    accelerated = {layer for segment in executable.package.segments.values() for layer in segment.layers}
    assert convolutions <= accelerated
    assert executable.info["stream_bytes"] > 0
    printed = report.partition(executable.report["partition"])
    assert printed[0].startswith("partition: ")
    assert convolutions <= {n for s in executable.report["partition"] if s["runs_on"] == "accelerator" for n in s["layers"]}
