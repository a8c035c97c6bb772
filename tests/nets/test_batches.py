from __future__ import annotations

from collections import OrderedDict

import pytest
import torch
from torch import Tensor, nn

from secateurs.errors import InputError
from secateurs.nets.batches import (
    all_finite,
    blank_image,
    copied_batch,
    forward,
    joined,
    num_samples,
    samples,
    shape_words,
    without_values,
)


class Keywords(nn.Module):
    def forward(self, image: Tensor, scale: Tensor) -> Tensor:
        return image * scale


def batches() -> list[object]:
    image, scale = torch.rand(4, 3, 2, 2), torch.rand(4, 1, 1, 1)
    return [
        image,
        (image, torch.arange(4)),
        [image, {"label": torch.arange(4)}],
        {"image": image, "scale": scale},
        OrderedDict(image=image, scale=scale),
    ]


@pytest.mark.parametrize("batch", batches())
def test_some_samples_of_any_structure(batch: object):
    assert num_samples(batch) == 4
    assert num_samples(samples(batch, slice(1, 3))) == 2
    assert num_samples(samples(batch, torch.tensor([3]))) == 1
    again = joined([samples(batch, slice(0, 1)), samples(batch, slice(1, 4))])
    assert shape_words(again) == shape_words(batch)
    assert type(again) is type(batch)


def test_forward_gives_what_a_loader_means():
    image, scale = torch.rand(2, 3), torch.rand(2, 3)
    assert torch.equal(forward(nn.Identity(), image), image)
    assert torch.equal(forward(nn.Identity(), (image, torch.arange(2))), image)
    assert torch.equal(forward(Keywords(), {"image": image, "scale": scale}), image * scale)
    assert torch.equal(forward(Keywords(), ({"image": image, "scale": scale}, 1)), image * scale)


def test_tensors_of_another_length_stay_whole():
    shared = torch.zeros(7)
    assert samples((torch.zeros(4, 2), shared), slice(0, 1))[1] is shared


def test_copies_share_nothing_and_shapes_have_no_values():
    batch = {"a": [torch.zeros(2), "word"]}
    copy = copied_batch(batch)
    copy["a"][0].add_(1)
    assert float(batch["a"][0].sum()) == 0 and copy["a"][1] == "word"
    assert without_values(batch)["a"][0].is_meta
    assert blank_image(nn.Linear(2, 2).double(), 8).dtype == torch.float64


def test_values_that_are_not_finite_are_found_wherever_they_are():
    assert all_finite({"a": [torch.zeros(2)], "b": torch.tensor([3])})
    assert not all_finite({"a": [torch.tensor([0.0, float("inf")])]})


@pytest.mark.parametrize("batch", ["words", {}, [torch.tensor(3.0)], None])
def test_a_batch_without_samples_is_an_error(batch: object):
    with pytest.raises(InputError, match="expected a tensor or a structure of tensors"):
        num_samples(batch)
