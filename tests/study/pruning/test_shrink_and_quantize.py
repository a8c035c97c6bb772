from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from secateurs.errors import InputError
from secateurs.files import write_json
from secateurs.study.pruning import shrink_and_quantize as module


def test_a_pruned_network_serves_again_and_no_other_one_is_replaced(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    model, pruned = tmp_path / "net", []
    model.mkdir()
    (model / "model.json").write_text("{}")
    (model / "model.safetensors").write_bytes(b"weights")

    def shrink(model: Path, data: str, out: Path, budget: Any, **_: Any) -> None:
        pruned.append(budget.macs)
        out.mkdir()
        write_json(out / "pruning.json", {})
        write_json(out / "model.json", {})

    monkeypatch.setattr(module, "shrink_saved", shrink)
    monkeypatch.setattr(module, "quantize_saved", lambda own, *_, **__: {"own": str(own)})

    def run(macs: float) -> dict[str, Any]:
        out = tmp_path / "small.onnx"
        return module.shrink_and_quantize(model, "images", out, macs=macs, cache=tmp_path)

    assert run(0.5) == run(0.5) == {"own": str(tmp_path / "small-pruned")}
    assert pruned == [0.5]
    with pytest.raises(InputError, match="pruned in another way"):
        run(0.25)
    (model / "model.safetensors").write_bytes(b"trained again")
    with pytest.raises(InputError, match="pruned in another way"):
        run(0.5)
    assert pruned == [0.5]
