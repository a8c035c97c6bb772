from __future__ import annotations

import dataclasses
import io
import random
import re
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from secateurs.data.faces import dataset, drawing
from secateurs.data.faces.backdrop import Draws
from secateurs.data.faces.scene import LOOKS, Identity, Light, draw_identity, draw_scene
from secateurs.errors import InputError


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> list[dataset.Face]:
    """Replace the renderer by one that only notes what it was asked for."""
    asked: list[dataset.Face] = []

    def render(face: dataset.Face, *, seed: int = 0) -> bytes:
        asked.append(face)
        return f"{seed} {face.name}".encode()

    monkeypatch.setattr(dataset, "render", render)
    return asked


@pytest.mark.parametrize("seed", [0, 1, 2, 17])
def test_plan_has_the_papers_counts_and_mixes_expressions_within_every_person(seed: int) -> None:
    planned = dataset.plan(seed)
    counts = Counter(face.expression for face in planned)
    assert [counts[name] for name in sorted(counts)] == [100, 75, 100, 100, 100, 100, 100]
    assert sorted(counts) == sorted(LOOKS)
    people: dict[int, list[str]] = defaultdict(list)
    for face in planned:
        people[face.identity].append(face.expression)
    assert sorted(people) == list(range(75))
    assert {len(shown) for shown in people.values()} == {9}
    assert min(len(set(shown)) for shown in people.values()) >= 4
    assert len({face.name for face in planned}) == 675


def test_another_seed_deals_other_expressions() -> None:
    assert dataset.plan(0) == dataset.plan(0)
    assert dataset.plan(0) != dataset.plan(1)


def test_group_pattern_reads_the_identity_from_the_file_name() -> None:
    for face in dataset.plan():
        match = re.search(dataset.GROUP_PATTERN, Path(face.name).name)
        assert match is not None
        assert int(match[1]) == face.identity


def test_people_differ_and_keep_their_appearance() -> None:
    people = [draw_identity(0, number) for number in range(75)]
    assert people == [draw_identity(0, number) for number in range(75)]
    appearances = {dataclasses.replace(person, number=0) for person in people}
    assert len(appearances) == 75
    assert max(Counter(person.top for person in people).values()) == 2
    assert draw_identity(1, 0) != draw_identity(0, 0)


def test_frames_of_a_shot_share_the_look_but_not_the_pose() -> None:
    first, second = draw_scene(0, 4, "Sad", 1), draw_scene(0, 4, "Sad", 2)
    assert first.look == second.look
    assert first.light.angle_deg == second.light.angle_deg
    assert first.pose != second.pose
    assert abs(first.pose.angle_deg - second.pose.angle_deg) <= 8
    assert draw_scene(0, 4, "Sad", 1) == first


def test_every_look_of_every_expression_is_its_own() -> None:
    owner: dict[object, str] = {}
    for expression, looks in LOOKS.items():
        assert 2 <= len(looks) <= 4
        for look in looks:
            assert owner.setdefault(look, expression) == expression
    shown = {
        (face.expression, draw_scene(0, face.identity, face.expression, face.index).look)
        for face in dataset.plan()
    }
    assert len(shown) == sum(len(looks) for looks in LOOKS.values())


def test_rendering_twice_gives_the_same_bytes() -> None:
    chosen = dataset.plan()[::150]
    first = [dataset.render(face) for face in chosen]
    # The other way round: nothing may carry over from one picture to the next.
    second = [dataset.render(face) for face in reversed(chosen)][::-1]
    assert first == second
    assert len(set(first)) == len(chosen)
    with Image.open(io.BytesIO(first[0])) as picture:
        assert (picture.size, picture.mode, picture.format) == ((256, 256), "RGB", "JPEG")
    assert dataset.render(chosen[0], seed=1) != first[0]


def test_rendering_leaves_the_callers_random_numbers_alone() -> None:
    random.seed(5)
    expected = [random.random() for _ in range(3)]
    random.seed(5)
    dataset.render(dataset.plan()[0])
    assert [random.random() for _ in range(3)] == expected


def test_every_part_that_can_be_drawn_exists_in_the_library() -> None:
    for number in range(75):
        person = draw_identity(0, number)
        for expression in LOOKS:
            svg = drawing.compose(person, draw_scene(0, number, expression, 0))
            assert svg.count("<svg") == 1
            assert "<text" not in svg  # no fonts needed


def test_filling_masked_rectangles_changes_edges_only(monkeypatch: pytest.MonkeyPatch) -> None:
    def shown(person: Identity, expression: str) -> np.ndarray:
        scene = draw_scene(0, person.number, expression, 0)
        return drawing.draw(person, scene, noise_seed=0).astype(int)

    cases = [(draw_identity(0, number), "Fear") for number in range(0, 75, 15)]
    filled = np.stack([shown(*case) for case in cases])
    monkeypatch.setattr(drawing, "_fill_masked", lambda root: None)
    masked = np.stack([shown(*case) for case in cases])
    difference = np.abs(filled - masked)
    assert difference.max() <= 80
    assert (difference > 4).mean() < 0.01


def test_light_without_slope_shade_or_noise_is_a_gain() -> None:
    pixels = np.full((4, 6, 3), 100, dtype=np.uint8)
    light = Light(gain=0.5, slope=0, angle_deg=0, warmth=1.25, shade=0, noise=0)
    lit = drawing.illuminate(pixels, light, noise_seed=0)
    assert lit.shape == pixels.shape
    assert np.unique(lit.reshape(-1, 3), axis=0).tolist() == [[63, 50, 40]]


def test_noise_has_the_standard_deviation_it_says() -> None:
    pixels = np.full((200, 200, 3), 128, dtype=np.uint8)
    light = Light(gain=1, slope=0, angle_deg=0, warmth=1, shade=0, noise=6)
    lit = drawing.illuminate(pixels, light, noise_seed=3).astype(float)
    assert lit.std() == pytest.approx(6, rel=0.02)
    assert lit.mean() == pytest.approx(128, abs=0.1)


def test_draws_depend_on_their_key_alone() -> None:
    # Python guarantees this sequence, so a change here means that every cached set is stale.
    assert Draws("a", 1).uniform(0, 1) == random.Random("a/1").random()
    assert sorted(Draws(0).shuffled([3, 1, 2])) == [1, 2, 3]
    assert re.fullmatch("#[0-9a-f]{6}", Draws(0).color())


def test_set_is_written_as_class_folders(tmp_path: Path, quick: list[dataset.Face]) -> None:
    out = dataset.write_faces(tmp_path / "new" / "set", seed=3)
    assert out == tmp_path / "new" / "set"
    written = sorted(path.relative_to(out).as_posix() for path in out.rglob("*.jpg"))
    assert written == sorted(face.name for face in dataset.plan(3))
    assert (out / written[0]).read_text() == f"3 {written[0]}"
    assert len(quick) == 675
    assert [path.name for path in out.parent.iterdir()] == ["set"]


def test_empty_folder_is_filled(tmp_path: Path, quick: list[dataset.Face]) -> None:
    dataset.write_faces(tmp_path / "set")
    (tmp_path / "empty").mkdir()
    dataset.write_faces(tmp_path / "empty")
    assert len(list((tmp_path / "empty").rglob("*.jpg"))) == 675


def test_folder_with_anything_in_it_is_refused(tmp_path: Path, quick: list[dataset.Face]) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    expected = f"{tmp_path}: exists and is not an empty folder; give a new folder's name"
    with pytest.raises(InputError, match=f"^{re.escape(expected)}$"):
        dataset.write_faces(tmp_path)
    with pytest.raises(InputError, match="exists and is not an empty folder"):
        dataset.write_faces(tmp_path / "notes.txt")
    assert quick == []
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_interruption_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    calls: list[dataset.Face] = []

    def render(face: dataset.Face, *, seed: int = 0) -> bytes:
        calls.append(face)
        if len(calls) == 20:
            raise error
        return b"x"

    monkeypatch.setattr(dataset, "render", render)
    with pytest.raises(error):
        dataset.embedded_faces(tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_cache_is_rendered_once(tmp_path: Path, quick: list[dataset.Face]) -> None:
    first = dataset.embedded_faces(tmp_path)
    assert re.fullmatch(rf"faces-v{dataset.VERSION}-[0-9a-f]{{12}}", first.name)
    assert dataset.embedded_faces(tmp_path) == first
    assert len(quick) == 675


def test_the_slower_of_two_processes_takes_the_other_ones_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def render(face: dataset.Face, *, seed: int = 0) -> bytes:
        # The other process finishes while this one renders.
        monkeypatch.setattr(dataset, "render", lambda face, *, seed=0: b"theirs")
        dataset.embedded_faces(tmp_path)
        monkeypatch.setattr(dataset, "render", lambda face, *, seed=0: b"ours")
        return b"ours"

    monkeypatch.setattr(dataset, "render", render)
    folder = dataset.embedded_faces(tmp_path)
    assert {path.read_bytes() for path in folder.rglob("*.jpg")} == {b"theirs"}
    assert [path.name for path in tmp_path.iterdir()] == [folder.name]
