"""`qcc --keep-layers` and `qcc-run --compare`, as a user types them."""

from pathlib import Path

import numpy as np
import pytest

from qcc.tools import qcc as compiler
from qcc.tools import qcc_run

EXAMPLES = Path(__file__).parents[2] / "examples"
CNN = str(EXAMPLES / "digits_cnn.mlir")


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> str:
    file = tmp_path_factory.mktemp("input") / "x.npy"
    np.save(file, np.load(EXAMPLES / "digits.npz")["images"][:1])
    return str(file)


@pytest.mark.slow
def test_every_layer_of_an_artefact_is_listed_and_equal(tmp_path: Path, image: str, capsys: pytest.CaptureFixture[str]) -> None:
    artefact = str(tmp_path / "cnn.so")
    assert compiler.main([CNN, "--keep-layers", "-o", artefact]) == 0
    capsys.readouterr()
    assert qcc_run.main([artefact, "--compare", CNN, "--input", image]) == 0
    out = capsys.readouterr().out
    for layer in ("stem.conv", "depthwise.conv", "binary.conv", "pruned.conv", "add"):
        assert layer in out
    assert "no layer leaves the reference: 11 of 11 are equal bit for bit" in out
    assert qcc_run.main([artefact, "--compare", CNN.replace("cnn", "mixer"), "--input", image]) == 1
    assert "expected the model it was compiled from" in capsys.readouterr().err


def test_an_artefact_without_layers_says_how_to_get_them(tmp_path: Path, image: str, capsys: pytest.CaptureFixture[str]) -> None:
    artefact = str(tmp_path / "cnn.so")
    assert compiler.main([CNN, "-o", artefact]) == 0
    assert qcc_run.main([artefact, "--compare", CNN, "--input", image]) == 1
    assert "compile it with --keep-layers" in capsys.readouterr().err
