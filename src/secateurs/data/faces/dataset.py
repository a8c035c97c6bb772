"""The embedded image set: 675 rendered faces of 75 people with the paper's seven expressions."""

from __future__ import annotations

import io
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from PIL import Image

from secateurs.data.faces.backdrop import Draws
from secateurs.data.faces.drawing import draw
from secateurs.data.faces.scene import draw_identity, draw_scene
from secateurs.errors import InputError
from secateurs.extras import require
from secateurs.files import atomic_folder, fingerprint
from secateurs.progress import SILENT, Progress

# Raise when what is drawn changes, so that caches are rendered again.
VERSION = 3
# The class counts of SFEW in the paper.
COUNTS = {
    "Angry": 100,
    "Disgust": 75,
    "Fear": 100,
    "Happy": 100,
    "Neutral": 100,
    "Sad": 100,
    "Surprise": 100,
}
NUM_IDENTITIES = 75
PICTURES_EACH = 9
JPEG_QUALITY = 90
GROUP_PATTERN = r"^(\d+)_"


@dataclass(frozen=True, order=True)
class Face:
    """One picture of the set: person 0..74, picture 0..8 of that person, expression."""

    identity: int
    index: int
    expression: str

    @property
    def name(self) -> str:
        """Path within the set's folder.

        >>> Face(12, 3, "Fear").name
        'Fear/012_3.jpg'
        """
        return f"{self.expression}/{self.identity:03d}_{self.index}.jpg"


def plan(seed: int = 0) -> tuple[Face, ...]:
    """Which pictures exist: the paper's class counts over 75 people, nine each.

    Each person shows four expressions twice, taken from the classes with most pictures left, and a
    ninth picture from what remains: four or five expressions per person, for every seed.

    >>> faces = plan()
    >>> len(faces), len({face.identity for face in faces})
    (675, 75)
    """
    draws = Draws(seed, "plan")
    left = dict(COUNTS)
    expressions: list[list[str]] = []
    for _ in range(NUM_IDENTITIES):
        # Largest first keeps the rests level, so every class can still give two to the end.
        taken = sorted(draws.shuffled(list(left)), key=lambda name: -left[name])[:4]
        for name in taken:
            left[name] -= 2
        expressions.append([name for name in taken for _ in range(2)])
    rest = draws.shuffled([name for name, count in left.items() for _ in range(count)])
    return tuple(
        Face(identity, index, expression)
        for identity, (own, last) in enumerate(zip(expressions, rest, strict=True))
        for index, expression in enumerate(sorted([*own, last]))
    )


def render(face: Face, *, seed: int = 0) -> bytes:
    """One picture of the set as a 256 x 256 JPEG file's bytes, the same on every call."""
    identity = draw_identity(seed, face.identity)
    scene = draw_scene(seed, face.identity, face.expression, face.index)
    noise_seed = (seed * NUM_IDENTITIES + face.identity) * PICTURES_EACH + face.index
    pixels = draw(identity, scene, noise_seed=noise_seed)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=JPEG_QUALITY)
    return file.getvalue()


def write_faces(out: Path, *, seed: int = 0, progress: Progress = SILENT) -> Path:
    """Write the set as OUT/<Expression>/<identity>_<picture>.jpg, whole or not at all.

    About 14 MB. Raises InputError when `out` exists and is not an empty folder. Returns `out`.
    """
    require("faces", "drawing the embedded faces")
    out = Path(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out}: exists and is not an empty folder; give a new folder's name")
    faces = plan(seed)
    with atomic_folder(out) as folder, progress.task("faces", len(faces)) as done:
        for expression in COUNTS:
            (folder / expression).mkdir()
        for face in faces:
            (folder / face.name).write_bytes(render(face, seed=seed))
            done(1)
    return out


def embedded_faces(cache: Path, *, progress: Progress = SILENT) -> Path:
    """The set's folder within `cache`, rendered there if it is missing (about 20 seconds).

    Two processes may do so at once: each renders aside and the first to finish provides it.
    """
    require("faces", "drawing the embedded faces")
    # The libraries draw the parts and the pixels: another version may draw them otherwise.
    drawn_by = {name: version(name) for name in ("python-avatars", "resvg-py", "pillow")}
    settings = {"version": VERSION, "seed": 0, "counts": COUNTS, "quality": JPEG_QUALITY}
    key = fingerprint(settings | drawn_by)
    folder = cache / f"faces-v{VERSION}-{key[:12]}"
    if folder.is_dir():
        return folder
    try:
        return write_faces(folder, progress=progress)
    except (OSError, InputError):
        if folder.is_dir() and any(folder.iterdir()):
            return folder
        raise
