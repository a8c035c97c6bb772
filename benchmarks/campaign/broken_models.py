"""Damaged models and weights: each is refused in one line, or gives the undamaged one's outputs."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import torch

from kills import Tally, World
from mutations import HOSTILE, PeakMemory, guarded, mutate, plant

MOST_MIB = 1024
FILES = ("model.json", "model.json", "model.safetensors")


def model_files(
    count: int,
    world: World,
    folder: Path,
    chance: random.Random,
    *,
    until: Callable[[], bool] = lambda: False,
) -> tuple[Tally, dict[str, float]]:
    """Load damaged model folders: InputError, or the outputs of the undamaged one."""
    from secateurs.ship.checkpoint import load

    tally, memory = Tally(), PeakMemory()
    image = torch.rand(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        right = load(world.model).model(image)
    originals = {name: (world.model / name).read_bytes() for name in FILES}
    copy = folder / "model"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(world.model, copy)
    for number in range(count):
        if until():
            break
        name = chance.choice(FILES)
        kind = chance.random() if name == "model.json" else 1.0
        data = originals[name]
        if kind < 0.1:
            data = chance.choice(HOSTILE)
        elif kind < 0.5:
            data = plant(data, chance)
        else:
            data = mutate(data, chance)
        (copy / name).write_bytes(data)

        def read() -> str | None:
            with torch.no_grad():
                same = torch.equal(load(copy).model(image), right)
            return None if same else "other outputs without an error"

        memory.start()
        trouble = guarded(f"model {number} ({name})", read)
        risen = memory.risen()
        if trouble is None and risen > MOST_MIB:
            trouble = f"model {number} ({name}): {risen:.0f} MiB"
        if trouble:
            (folder / f"failed-{number}-{name}").write_bytes(data)
        tally.add(trouble)
        (copy / name).write_bytes(originals[name])
    return tally, {"peak_mib": round(memory.largest_mib, 1)}


def weights_files(
    count: int, folder: Path, chance: random.Random, *, until: Callable[[], bool] = lambda: False
) -> tuple[Tally, dict[str, float]]:
    """Load damaged .pth and .safetensors weights: InputError, or weights that are finite."""
    from safetensors.torch import save_file

    from secateurs.nets.backbones import build
    from secateurs.nets.weights import load_pretrained

    tally, memory, model = Tally(), PeakMemory(), build("alexnet", 3)
    state = {key: value.clone() for key, value in build("alexnet", 1000).state_dict().items()}
    torch.save(state, folder / "good.pth")
    torch.save(state, folder / "good-old.pth", _use_new_zipfile_serialization=False)
    save_file(state, str(folder / "good.safetensors"))
    originals = {path.name: path.read_bytes() for path in sorted(folder.glob("good*"))}
    for number in range(count):
        if until():
            break
        name = chance.choice(sorted(originals))
        path = folder / f"weights{Path(name).suffix}"
        path.write_bytes(mutate(originals[name], chance))

        def read(path: Path = path) -> str | None:
            load_pretrained(model, "alexnet", path, cache=folder)
            finite = all(bool(value.isfinite().all()) for value in model.state_dict().values())
            return None if finite else "weights that are not finite"

        memory.start()
        trouble = guarded(f"weights {number} ({name})", read)
        risen = memory.risen()
        if trouble is None and risen > MOST_MIB:
            trouble = f"weights {number} ({name}): {risen:.0f} MiB"
        if trouble:
            shutil.copy(path, folder / f"failed-{number}-{name}")
        tally.add(trouble)
    return tally, {"peak_mib": round(memory.largest_mib, 1)}
