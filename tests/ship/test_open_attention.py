"""Networks whose attention heads were cut, saved and read back."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from secateurs.errors import InputError
from secateurs.nets.attention import open_attention
from secateurs.nets.backbones import build
from secateurs.prune.coupling.groups import find_groups
from secateurs.prune.surgery.narrow import narrow
from secateurs.ship.checkpoint import load, save
from secateurs.ship.spec import ImageInput, describe


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    model = open_attention(build("swin_t", 2)).eval()
    groups = find_groups(model, torch.empty(1, 3, 64, 64)).found
    groups = [group for group in groups if not group.is_norm_width]  # as in a study
    stay = {g.name: torch.arange(0, g.num_units, 2) for g in groups}
    cut = narrow(model, groups, stay)
    where = tmp_path_factory.mktemp("swin")
    save(cut, describe(cut, "swin_t", ["a", "b"], ImageInput.of("swin_t", size=64)), where)
    torch.save(cut(torch.ones(1, 3, 64, 64)), where / "answer.pt")
    return where


def test_cut_heads_come_back_bit_for_bit(folder: Path) -> None:
    loaded = load(folder)
    assert loaded.spec.attention == "open"
    attention = loaded.model.get_submodule("features.1.0.attn")
    assert attention.table.shape == (2, 169)  # of 3 heads
    assert loaded.spec.widths["features.1.0.attn"] == {"in": 2, "out": 2}
    assert attention.qkv.out_features == 3 * 2 * 32
    with torch.no_grad():
        answer = torch.load(folder / "answer.pt", weights_only=True)
        assert torch.equal(loaded.model(torch.ones(1, 3, 64, 64)), answer)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"attention": "shut"}, r"model.json: attention: expected 'stock' or 'open', got 'shut'"),
        ({"attention": "stock"}, r"widths.features.1.0.attn: swin_t has no such layer"),
        ({"backbone": "resnet18"}, r"widths.features.1.0.attn: resnet18 has no such layer"),
        ({"heads": 4}, r"widths.features.1.0.attn.in: 4, swin_t has only 3"),
        ({"heads": 3}, r"tensor 'features.1.0.attn.table' is \(2, 169\), expected \(3, 169\)"),
    ],
)
def test_recipes_that_lie_are_refused(folder: Path, change: dict[str, object], message: str):
    path = folder / "model.json"
    whole = path.read_text()
    data = json.loads(whole)
    heads = change.get("heads")
    if heads is None:
        data |= change
    else:
        data["widths"]["features.1.0.attn"] = {"in": heads, "out": heads}
    path.write_text(json.dumps(data))
    try:
        with pytest.raises(InputError, match=message):
            load(folder)
    finally:
        path.write_text(whole)
