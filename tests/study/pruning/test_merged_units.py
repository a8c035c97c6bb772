from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from secateurs.prune.selection.pairwise import pairwise
from secateurs.study.pruning.merged_units import merged_groups, merged_record
from secateurs.study.saved.samples import thumbnail
from secateurs.study.setup.config import StudyConfig
from secateurs.study.setup.trial_context import Dataset, open_dataset


def bundles(num_images: int = 30) -> torch.Tensor:
    """Activations of 40 units: bundles of 20, 10, 5, 2 and 1 near directions, 2 dead units."""
    generator = torch.Generator().manual_seed(3)
    base = torch.rand(num_images, 5, generator=generator) ** 4
    sizes = torch.tensor([20, 10, 5, 2, 1])
    columns = base.repeat_interleave(sizes, dim=1)
    columns = columns + 0.02 * torch.rand(columns.shape, generator=generator)
    order = torch.randperm(40, generator=generator)
    return torch.cat([columns, torch.zeros(num_images, 2)], dim=1)[:, order]


def test_groups_agree_with_a_plain_loop() -> None:
    x = bundles()
    selection = pairwise(x, low_deg=20, high_deg=None, normalise="none")
    found = merged_groups(x, selection, num_groups=3, num_nearest=3, num_images=4)
    members: dict[int, list[tuple[float, int]]] = {}
    for unit, parent, angle in zip(
        selection.removed.tolist(),
        selection.parent.tolist(),
        selection.angle_deg.tolist(),
        strict=True,
    ):
        if parent >= 0:
            members.setdefault(parent, []).append((angle, unit))
    ranked = sorted(members, key=lambda survivor: (-len(members[survivor]), survivor))
    assert len(ranked) == found.num_groups == 4  # the lone unit stands for nobody
    assert found.num_merged == sum(map(len, members.values())) == 33
    assert [group.num_merged for group in found.groups] == [19, 4, 1]
    assert found.num_images == len(x)
    for group in found.groups:
        survivor = group.units[0]
        assert survivor.unit in ranked
        mine = sorted(members[survivor.unit])
        expected = [unit for _, unit in mine[:3]] + ([mine[-1][1]] if len(mine) > 3 else [])
        assert [one.unit for one in group.units[1:]] == expected
        assert group.angle_deg_max == pytest.approx(mine[-1][0])
        for one in group.units:
            values = x[:, one.unit].numpy()
            assert one.rows == tuple(np.argsort(-values, kind="stable")[:4].tolist())
            assert one.activations == pytest.approx(values[list(one.rows)].tolist())
            cosine = torch.cosine_similarity(x[:, survivor.unit], x[:, one.unit], dim=0)
            assert one.angle_deg == pytest.approx(
                float(cosine.clamp(-1, 1).acos().rad2deg()), abs=0.1
            )


def test_an_opposite_unit_is_near_and_images_that_do_not_excite_are_left_out() -> None:
    x = torch.tensor([[3.0, -3.0, 0.0, 0.0], [1.0, -1.1, 0.0, 0.0], [0.0, 0.0, 5.0, 0.0]])
    selection = pairwise(x, low_deg=15, high_deg=165, normalise="none")
    found = merged_groups(x, selection)
    (group,) = found.groups
    assert [one.unit for one in group.units] == [0, 1]
    assert group.units[1].angle_deg > 170
    assert group.angle_deg_max < 10
    # Unit 0 is at its least on image 2, unit 1 on image 0.
    assert group.units[0].rows == (0, 1)
    assert group.units[1].rows == (2, 1)


def test_nothing_merged_makes_no_record(flags: Path, tmp_path: Path) -> None:
    x = torch.eye(3)
    found = merged_groups(x, pairwise(x, low_deg=15, high_deg=None, normalise="none"))
    assert found.groups == ()
    assert (
        merged_record(
            [("fc7", found)], opened(flags, tmp_path), tmp_path / "out", normalise="centre"
        )
        is None
    )
    assert not (tmp_path / "out").exists()


def opened(flags: Path, tmp_path: Path) -> Dataset:
    return open_dataset(str(flags), StudyConfig(), cache=tmp_path / "cache")


def test_every_image_is_written_once_in_its_own_proportions(flags: Path, tmp_path: Path) -> None:
    dataset, out = opened(flags, tmp_path), tmp_path / "out"
    x = bundles(len(dataset.sides["train"]))
    found = merged_groups(x, pairwise(x, low_deg=20, high_deg=None, normalise="none"))
    record = merged_record([("fc7", found)], dataset, out, normalise="centre")
    assert record is not None
    names = [picture["name"] for picture in record["pictures"]]
    assert len(set(names)) == len(names) == len(list((out / "thumbnails").iterdir()))
    for at, name in enumerate(names):
        picture = record["pictures"][at]
        assert name.startswith(picture["true"] + "/")
        with Image.open(out / picture["thumbnail"]) as image:
            assert (image.format, image.size) == ("WEBP", (115, 96))
    first = record["layers"][0]["groups"][0]["units"][0]
    strongest = found.groups[0].units[0].rows[0]
    assert names[first["pictures"][0]] == dataset.names("train")[strongest]


def test_a_very_long_image_is_shown_as_twice_as_long(flags: Path, tmp_path: Path) -> None:
    images = opened(flags, tmp_path).sides["train"]
    images.sizes[0] = (4000, 40)
    assert thumbnail(images, 0, 50).size == (50, 100)
