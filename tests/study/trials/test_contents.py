from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from secateurs.errors import InputError
from secateurs.study.trials.contents import Column, Content, Contents, map_arrays, write_arrays


def _arrays() -> dict[str, np.ndarray]:
    generator = np.random.default_rng(0)
    return {
        "pixels": generator.integers(0, 255, (600, 3, 2), dtype=np.uint8),
        "ids": generator.integers(0, 2**63, 600, dtype=np.uint64),
        "none": np.zeros((0, 4)),
    }


def test_arrays_are_written_in_the_format_of_safetensors_and_mapped_read_only(tmp_path: Path):
    arrays = _arrays()
    content = write_arrays({name: Column.of(one) for name, one in arrays.items()}, tmp_path)
    path = Path(content.path)
    assert path.name == content.name and path.stat().st_size == content.num_bytes
    other, mine = load_file(path), map_arrays(path)
    for name, array in arrays.items():
        np.testing.assert_array_equal(other[name], array)
        np.testing.assert_array_equal(mine[name], array)
    with pytest.raises(ValueError, match="read-only"):
        mine["pixels"][0] = 0


def test_the_same_arrays_are_the_same_file_and_are_written_once(tmp_path: Path):
    arrays = {name: Column.of(one) for name, one in _arrays().items()}
    first = write_arrays(arrays, tmp_path)
    before = Path(first.path).stat().st_ino
    assert write_arrays(arrays, tmp_path) == first
    assert Path(first.path).stat().st_ino == before


def test_a_machine_takes_what_it_sees_and_fetches_what_it_does_not_once(tmp_path: Path):
    content = write_arrays({"x": Column.of(np.arange(9.0))}, tmp_path / "driver")
    data = Path(content.path).read_bytes()

    def fetch(asked: Content) -> list[bytes]:
        return [data[:50], data[50:]]

    near = Contents(tmp_path / "near", fetch)
    assert near.path(content) == Path(content.path) and near.num_fetched == 0
    far = Contents(tmp_path / "far", fetch, shared_disk=False)
    path = far.path(content)
    assert path.parent == tmp_path / "far" and path.read_bytes() == data
    assert far.path(content) == path and far.num_fetched == len(data)
    again = Contents(tmp_path / "far", fetch, shared_disk=False)
    assert again.path(content) == path and again.num_fetched == 0


def test_a_copy_that_is_damaged_is_fetched_again_and_one_that_arrives_so_is_refused(
    tmp_path: Path,
):
    content = write_arrays({"x": Column.of(np.arange(9.0))}, tmp_path / "driver")
    data = Path(content.path).read_bytes()
    (tmp_path / "far").mkdir()
    (tmp_path / "far" / content.name).write_bytes(data[:-1] + b"x")
    far = Contents(tmp_path / "far", lambda asked: [data], shared_disk=False)
    assert far.path(content).read_bytes() == data
    wrong = Contents(tmp_path / "wrong", lambda asked: [data[:-1], b"x"], shared_disk=False)
    with pytest.raises(InputError, match="changed while the study ran"):
        wrong.path(content)
    assert not list((tmp_path / "wrong").glob("*.safetensors"))
