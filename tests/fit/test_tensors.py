from __future__ import annotations

import errno
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

import secateurs.fit.tensors
from secateurs.fit.tensors import write_tensors


def test_tensors_come_back(tmp_path: Path):
    tensors = {"a": torch.arange(6.0).view(2, 3), "b": torch.tensor([1], dtype=torch.int64)}
    write_tensors(tensors, tmp_path / "t")
    found = load_file(tmp_path / "t")
    assert found.keys() == tensors.keys()
    assert all(torch.equal(found[name], tensors[name]) for name in tensors)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("Error while serializing: I/O error: No space left on device (os error 28)", OSError),
        ("Error while serializing: invalid header", SafetensorError),
    ],
)
def test_a_full_disk_is_an_error_of_the_system(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, kind: type[Exception]
):
    def fail(*words: object, **options: object) -> None:
        raise SafetensorError(text)

    monkeypatch.setattr(secateurs.fit.tensors, "save_file", fail)
    with pytest.raises(kind) as caught:
        write_tensors({}, tmp_path / "t")
    if kind is OSError:
        assert caught.value.errno == errno.ENOSPC
        assert caught.value.filename == str(tmp_path / "t")
