"""Damaged bytes: images, models, records and caches, each read by the functions that read them."""

from __future__ import annotations

import contextlib
import io
import random
import resource
import shutil
import signal
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from kills import Tally, World
from PIL import Image

SECONDS = 10
HOSTILE = (
    b"true",
    b"[]",
    b"{}",
    b"NaN",
    b"[" * 100_000,
    b"1" * 5_000,
    b"",
    b'{"a": 1e999}',
    b"\xff",
)


class TooSlow(Exception):
    """A file took longer than `SECONDS`."""


@contextmanager
def limited() -> Generator[None]:
    """Raise TooSlow in what takes longer than allowed."""

    def ring(*_: object) -> None:
        raise TooSlow

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def mutate(data: bytes, chance: random.Random) -> bytes:
    """A damaged copy: cut off, bits flipped, a stretch zeroed, doubled, removed or random."""
    found = bytearray(data)
    kind = chance.randrange(7)
    size = max(1, len(found))
    place = chance.randrange(size)
    if chance.random() < 0.4:
        place = min(place, chance.randrange(min(size, 256)))  # headers matter most
    length = chance.choice([1, 2, 4, 16, 256, max(1, size // 2)])
    if kind == 0:
        del found[place:]
    elif kind == 1:
        for _ in range(chance.choice([1, 1, 8, 64])):
            at = chance.randrange(size) if len(found) else 0
            if len(found):
                found[at] ^= 1 << chance.randrange(8)
    elif kind == 2:
        found[place : place + length] = bytes(len(found[place : place + length]))
    elif kind == 3:
        found[place:place] = found[place : place + length]
    elif kind == 4:
        del found[place : place + length]
    elif kind == 5:
        found[place : place + length] = chance.randbytes(len(found[place : place + length]))
    else:
        found[place : place + 4] = b"\xff" * len(found[place : place + 4])
    return bytes(found)


def guarded(what: str, read: Callable[[], str | None]) -> str | None:
    """What is wrong with reading a damaged file: InputError (or what `read` says) is right."""
    from secateurs.errors import InputError

    started = time.monotonic()
    try:
        with limited():
            return read()
    except InputError as error:
        lines = str(error).splitlines()
        return None if len(lines) == 1 else f"{what}: a message of {len(lines)} lines"
    except TooSlow:
        return f"{what}: over {SECONDS} s"
    except Exception as error:
        taken = time.monotonic() - started
        return f"{what}: {type(error).__name__}: {str(error)[:200]} after {taken:.1f} s"


def samples() -> list[tuple[str, bytes]]:
    """Small images in every format and mode that is read, as (name, bytes)."""
    generator = np.random.default_rng(0)
    rgb = Image.fromarray(generator.integers(0, 256, (40, 56, 3)).astype(np.uint8))
    deep = Image.fromarray(generator.integers(0, 65536, (30, 20)).astype(np.uint16))
    found: list[tuple[str, bytes]] = []
    for form, options in (
        ("JPEG", {}), ("JPEG", {"progressive": True}), ("JPEG", {"quality": 100, "subsampling": 0}),
        ("PNG", {}), ("WEBP", {}), ("WEBP", {"lossless": True}), ("BMP", {}), ("TIFF", {}),
        ("TIFF", {"compression": "tiff_lzw"}), ("TIFF", {"compression": "jpeg"}),
        ("TIFF", {"compression": "tiff_deflate"}), ("PPM", {}),
    ):  # fmt: skip
        for mode in ("RGB", "L", "P", "RGBA", "CMYK", "1", "LA"):
            with contextlib.suppress(OSError, ValueError):
                into = io.BytesIO()
                rgb.convert(mode).save(into, form, **options)
                found.append((f"{form.lower()}-{mode}", into.getvalue()))
    for form in ("PNG", "TIFF", "PPM"):
        with contextlib.suppress(OSError, ValueError):
            into = io.BytesIO()
            deep.save(into, form)
            found.append((f"{form.lower()}-16", into.getvalue()))
    return found


def images(count: int, folder: Path, chance: random.Random) -> Tally:
    """Decode damaged images: an image or a DecodeError, in time and bounded memory."""
    from secateurs.data.decode import decode

    tally, made = Tally(), samples()
    path = folder / "damaged.png"
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for number in range(count):
        name, data = chance.choice(made)
        path.write_bytes(mutate(data, chance))

        def read() -> str | None:
            image = decode(path)
            return None if image.mode == "RGB" else f"mode {image.mode}"

        trouble = guarded(f"image {number} ({name})", read)
        if trouble:
            shutil.copy(path, folder / f"failed-{number}.{name}")
        tally.add(trouble)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    if grown > 1024:
        tally.wrong.append(f"images: memory grew by {grown:.0f} MiB")
    return tally


def model_files(count: int, world: World, folder: Path, chance: random.Random) -> Tally:
    """Load damaged models: InputError, or the outputs of the undamaged one."""
    from secateurs.ship.checkpoint import load

    tally = Tally()
    image = torch.rand(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        right = load(world.model).model(image)
    names = ["model.json", "model.safetensors"]
    originals = {name: (world.model / name).read_bytes() for name in names}
    copy = folder / "model"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(world.model, copy)
    for number in range(count):
        name = chance.choice(names)
        hostile = name == "model.json" and chance.random() < 0.1
        data = chance.choice(HOSTILE) if hostile else mutate(originals[name], chance)
        (copy / name).write_bytes(data)

        def read() -> str | None:
            with torch.no_grad():
                same = torch.equal(load(copy).model(image), right)
            return None if same else "other outputs without an error"

        trouble = guarded(f"model {number} ({name})", read)
        if trouble:
            (folder / f"failed-{number}-{name}").write_bytes(data)
        tally.add(trouble)
        (copy / name).write_bytes(originals[name])
    return tally


def weights_files(count: int, folder: Path, chance: random.Random) -> Tally:
    """Load damaged .pth and .safetensors weights: InputError, or weights that load."""
    from safetensors.torch import save_file

    from secateurs.nets.backbones import build
    from secateurs.nets.weights import load_pretrained

    tally, model = Tally(), build("alexnet", 3)
    state = {key: value.clone() for key, value in build("alexnet", 1000).state_dict().items()}
    torch.save(state, folder / "good.pth")
    save_file(state, str(folder / "good.safetensors"))
    for number in range(count):
        kind = chance.choice(["pth", "safetensors"])
        path = folder / f"weights.{kind}"
        path.write_bytes(mutate((folder / f"good.{kind}").read_bytes(), chance))

        def read(path: Path = path) -> None:
            load_pretrained(model, "alexnet", path, cache=folder)

        trouble = guarded(f"weights {number} ({kind})", read)
        if trouble:
            shutil.copy(path, folder / f"failed-{number}.{kind}")
        tally.add(trouble)
    return tally
