from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

import secateurs.fit.tensors
from secateurs.fit.tensors import write_tensors
from secateurs.leftovers import is_temporary


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


def test_what_a_killed_write_leaves_is_swept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def killed(tensors: object, path: Path, **options: object) -> None:
        (path.parent / ".tmpA1b2C3").write_bytes(b"half")  # the library's own temporary name
        os._exit(9)

    process = os.fork()
    if not process:
        monkeypatch.setattr(secateurs.fit.tensors, "save_file", killed)
        write_tensors({}, tmp_path / "t")
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 9
    (left,) = tmp_path.iterdir()
    assert is_temporary(left.name)
    write_tensors({"a": torch.zeros(2)}, tmp_path / "t")
    assert [path.name for path in tmp_path.iterdir()] == ["t"]
