from __future__ import annotations

from pathlib import Path

import pytest

from secateurs.errors import InputError
from secateurs.nets import candidates as module
from secateurs.nets.candidates import candidates
from secateurs.nets.download import NoWeightsError, WeightsFile


def test_a_network_without_weights_is_skipped_with_the_reason(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = WeightsFile("file", tmp_path / "weights.pth", "weights.pth", "0" * 64)

    def find(name: str, source: object, **_: object) -> WeightsFile:
        if name == "resnet18":
            raise NoWeightsError(name, "a drawer (it is empty)")
        return file

    monkeypatch.setattr(module, "find_weights", find)
    with pytest.raises(InputError, match=r"unknown backbone 'resnet81'"):
        candidates(["resnet18", "resnet81"], cache=tmp_path)
    found, skipped = candidates(["squeezenet1_1", "resnet18", "vit_b_32"], cache=tmp_path)
    assert [one.name for one in found] == ["squeezenet1_1", "vit_b_32"]
    assert [(one.name, one.reason) for one in skipped] == [
        ("resnet18", "no pretrained weights; tried a drawer (it is empty)")
    ]
    first = found[0]
    assert first.file is file and first.size == 224
    # What torchvision says of its own weights.
    from torchvision.models import SqueezeNet1_1_Weights as Published

    meta = Published.DEFAULT.meta
    assert first.num_parameters == meta["num_params"]
    assert first.macs / 1e9 == pytest.approx(meta["_ops"], abs=6e-4)
