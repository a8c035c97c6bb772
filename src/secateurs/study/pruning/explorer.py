"""One layer of a saved network, ready to be cut at any setting within a fraction of a second."""

from __future__ import annotations

import base64
import io
import shlex
import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from secateurs.data.images.decode import decode
from secateurs.data.views import normalise
from secateurs.errors import InputError
from secateurs.files import atomic_folder
from secateurs.fit.inputs import run_frozen
from secateurs.fit.metrics import Evaluation, evaluate
from secateurs.fit.precision import resolve_device
from secateurs.nets.batches import blank_image
from secateurs.nets.counting import macs
from secateurs.progress import SILENT, Progress
from secateurs.prune.incremental import FittedCut, Refits
from secateurs.prune.layer import Compensation
from secateurs.prune.layer_grid import LayerView, view_layer
from secateurs.prune.selection.all_angles import Cosines, cosines
from secateurs.prune.selection.cluster import Members, cluster_members, prepare
from secateurs.prune.selection.pairwise import Selection
from secateurs.prune.similarity.normalise import outside_norms
from secateurs.ship.checkpoint import Loaded
from secateurs.study.pruning.grid_rows import LayerSizes, accuracy
from secateurs.study.pruning.saved_layers import save_cut
from secateurs.study.pruning.slider_request import SliderRequest
from secateurs.study.pruning.tail import Measured, cut_measured, measure
from secateurs.study.saved.location import Location
from secateurs.study.saved.opened import own_config, saved_dataset, unpruned_model
from secateurs.study.setup.config import StudyConfig
from secateurs.study.setup.defaults import chosen_layers
from secateurs.study.setup.trial_context import Dataset, settle_split
from secateurs.threads import one_thread

KEPT, GONE, DEAD, CONSTANT = "0123"
REMEMBERED = 4  # cuts whose weights are at hand for a picture or a unit
TOP = 5  # answers to a picture

Record = dict[str, Any]


@dataclass(frozen=True)
class Explorer:
    """All that cutting one layer needs of images and pairs, looked at once."""

    place: Location
    loaded: Loaded
    config: StudyConfig
    dataset: Dataset
    changes: Record
    measured: Measured
    view: LayerView
    table: Cosines
    members: Members
    refits: Refits
    sizes: LayerSizes
    before: Evaluation
    before_logits: torch.Tensor  # (images, classes) of the unpruned network on validation
    cost: Record  # num_parameters, bytes and macs before any cut
    known: dict[SliderRequest, tuple[FittedCut, float | None]] = field(default_factory=dict)

    @property
    def layer(self) -> str:
        """What people call the layer."""
        return self.measured.aliases[0]

    @property
    def num_units(self) -> int:
        """Units of the layer before any cut."""
        return self.sizes.units


def open_explorer(
    place: Location,
    layer: str | None = None,
    *,
    changes: Record,
    cache: Path,
    progress: Progress = SILENT,
) -> Explorer:
    """Look once at the images, as pruning does, and at all pairs of the layer's units.

    `changes` are fields of StudyConfig, for instance another split. Raises InputError for bad
    input, for a network that is already pruned, and for images that are not the study's.
    """
    given = {key: value for key, value in changes.items() if value is not None}
    loaded = unpruned_model(place.model)
    layers = None if layer is None else (layer,)
    given_layers = chosen_layers(layers, loaded.model, loaded.spec.backbone)
    config = settle_split(place.data, own_config(loaded.spec, given | {"layers": given_layers}))
    dataset = saved_dataset(
        loaded.spec, place.data, config, cache=cache, progress=progress, sides=("train", "val")
    )
    # A network that knows its images finds them in a folder that has changed; another cannot.
    if place.identity is not None and loaded.spec.split is None and not given:
        odd = [k for k, v in dataset.identity().items() if place.identity.get(k) != v]
        if odd:
            raise InputError(
                f"{place.data}: not the {' and '.join(odd)} of the study in {place.directory}; "
                f"copy {place.model} to another place to explore it on other images"
            )
    device = resolve_device(config.device)
    sides = dataset.sides
    measured = measure(
        loaded.model.to(device), sides["train"], sides["val"], config,
        device=device, progress=progress,
    )  # fmt: skip
    # One layer is small work: on a CPU there is nothing to wait for.
    measured = replace(
        measured,
        model=measured.model.cpu(),
        inputs=measured.inputs.cpu(),
        val_inputs=measured.val_inputs.cpu(),
    )
    view = view_layer(measured.tail, measured.where[0], measured.inputs, measured.val_inputs)
    view = replace(view, copies=measured.copies)
    with progress.task("pairs", 3) as advance:
        table = cosines(view.train)
        advance(1)
        members = prepare(view.train, weight=view.weight, num_groups=view.train.shape[1])
        advance(1)
        refits = Refits(view)
        refits.prepare()
        advance(1)
    logits = view.logits(view.answer(view.receive(view.outputs)))
    model = measured.model
    tensors = model.state_dict().values()
    return Explorer(
        place=place,
        loaded=loaded,
        config=config,
        dataset=dataset,
        changes=given,
        measured=measured,
        view=view,
        table=table,
        members=members,
        refits=refits,
        sizes=LayerSizes.of(model, measured.paths[0], "pairwise"),
        before=evaluate(logits, measured.val_labels, dataset.classes, dataset.side_groups("val")),
        before_logits=logits,
        cost={
            "num_parameters": sum(parameter.numel() for parameter in model.parameters()),
            "bytes": sum(tensor.nbytes for tensor in tensors),
            "macs": macs(model, blank_image(model, loaded.spec.preprocessing.size)),
        },
    )


def facts(explorer: Explorer) -> Record:
    """What does not change while sliders move, as plain data."""
    view, split = explorer.table.source, explorer.dataset.split
    return {
        "model": explorer.place.model.resolve().name,
        "directory": str(explorer.place.directory),
        "backbone": explorer.config.backbone,
        "depth": explorer.loaded.spec.extra.get("depth"),
        "layer": explorer.layer,
        "num_units": explorer.num_units,
        "num_dead": int(view.dead.sum()),
        "num_constant": int(view.constant.sum()),
        "data": explorer.dataset.name,
        "split": split.rule,
        "num_train": len(explorer.measured.labels),
        "num_val": len(explorer.measured.val_labels),
        "classes": list(explorer.dataset.classes),
        "compensations": list(get_args(Compensation)),
        "before": explorer.cost
        | accuracy(
            explorer.before_logits,
            explorer.measured.val_labels,
            explorer.dataset.side_groups("val"),
        ),
        "majority_accuracy": explorer.before.majority_accuracy,
    }


def cut(explorer: Explorer, settings: SliderRequest) -> Record:
    """What is left of the network at one position of the sliders, as plain data.

    Numbers are those of `secateurs prune` with the same settings. `states` has one character a
    unit: 0 kept, 1 gone, 2 never fires, 3 never changes. Raises InputError on a bad position, and
    when no unit would be left.
    """
    started = time.perf_counter()
    fitted, low_deg = fit(explorer, settings)
    selection, labels = fitted.selection, explorer.measured.val_labels
    logits = fitted.logits(explorer.view, explorer.view.outputs)
    num_removed = len(selection.removed)
    source, sizes, cost = explorer.table.source, explorer.sizes, explorer.cost
    removed = sizes.added - num_removed * sizes.unit
    layer = explorer.measured.model.get_submodule(explorer.measured.paths[0])
    assert isinstance(layer, nn.Linear)
    products = layer.in_features + len(explorer.view.weight)
    looked_at = source.live & outside_norms(source.norm, settings.norm_std)
    return {
        "settings": asdict(settings),
        "low_deg": low_deg,
        "num_kept": explorer.num_units - num_removed,
        "num_removed": num_removed,
        "num_candidates": int(looked_at.sum()),
        "num_parameters": cost["num_parameters"] + removed,
        "bytes": cost["bytes"] + removed * explorer.view.weight.element_size(),
        "macs": cost["macs"] - num_removed * products,
        **accuracy(logits, labels, explorer.dataset.side_groups("val")),
        "num_changed": int((logits.argmax(1) != explorer.before_logits.argmax(1)).sum()),
        "states": _states(selection),
        "command": command(explorer, settings),
        "seconds": time.perf_counter() - started,
    }


def fit(explorer: Explorer, settings: SliderRequest) -> tuple[FittedCut, float | None]:
    """The layer cut and compensated at a position of the sliders, and the angle it is cut at.

    The angle is None where none decides. Raises InputError as `cut` does.
    """
    known = explorer.known
    if settings not in known:
        with one_thread(), torch.no_grad():
            selection, low_deg = _select(explorer, settings)
            fitted = explorer.refits.fit(selection, settings.compensation)
        while len(known) >= REMEMBERED:
            del known[next(iter(known))]
        known[settings] = fitted, low_deg
    return known[settings]


def _select(explorer: Explorer, settings: SliderRequest) -> tuple[Selection, float | None]:
    if settings.rule == "pairwise":
        table, low_deg = explorer.table, settings.low_deg
        if settings.keep is not None:
            low_deg = table.angle_for(settings.keep, settings.norm_std)
        assert low_deg is not None
        alive = table.survivors(low_deg, settings.norm_std)
        return table.selection(alive, low_deg, settings.norm_std), low_deg
    assert settings.keep is not None
    return cluster_members(explorer.members, keep=settings.keep, seed=explorer.config.seed), None


def _states(selection: Selection) -> str:
    states = np.full(selection.num_units, GONE)
    states[selection.survivors.numpy()] = KEPT
    states[selection.dead.numpy()] = DEAD
    states[selection.constant.numpy()] = CONSTANT
    return "".join(states.tolist())


def unit(explorer: Explorer, settings: SliderRequest, index: int) -> Record:
    """What became of one unit: its state, norm, and the survivor that stands for it, if any.

    Raises InputError for a unit that the layer does not have.
    """
    if not 0 <= index < explorer.num_units:
        raise InputError(f"unit: expected 0 to {explorer.num_units - 1}, got {index}")
    selection = fit(explorer, settings)[0].selection
    state = _states(selection)[index]
    found: Record = {
        "index": index,
        "state": state,
        "norm": float(selection.norm[index]),
        "parent": None,
        "angle_deg": None,
        "num_merged": 0,
    }
    if state == KEPT:
        found["num_merged"] = int((selection.parent == index).sum())
    at = (selection.removed == index).nonzero().flatten()
    if len(at) and int(selection.parent[at]) >= 0:
        found["parent"] = int(selection.parent[at])
        found["angle_deg"] = float(selection.angle_deg[at])
    return found


def read_picture(explorer: Explorer, path: Path, *, max_pixels: int) -> NDArray[np.uint8]:
    """What the network sees of an image file, (size, size, 3); nothing of the explorer changes.

    Raises DecodeError for a file that cannot be used.
    """
    return explorer.loaded.spec.preprocessing.pixels(decode(path, max_pixels=max_pixels))


def look_at(explorer: Explorer, pixels: NDArray[np.uint8]) -> tuple[torch.Tensor, str]:
    """The outputs (1, units) for what `read_picture` gives, and that as a `data:` address."""
    wanted = explorer.loaded.spec.preprocessing
    batch = normalise(torch.from_numpy(pixels[None].copy()), mean=wanted.mean, std=wanted.std)
    measured = explorer.measured
    names = [name for name, _ in measured.tail.named_children()]
    head = measured.tail[: names.index(measured.where[0]) + 1]
    outputs = run_frozen(head, run_frozen(measured.prefix, batch))
    packed = io.BytesIO()
    Image.fromarray(pixels).save(packed, format="JPEG", quality=90)
    return outputs, f"data:image/jpeg;base64,{base64.b64encode(packed.getvalue()).decode()}"


def answers(explorer: Explorer, outputs: torch.Tensor, settings: SliderRequest) -> Record:
    """How the unpruned and the cut network answer an image; `outputs` (1, units) are the layer's.

    The most probable classes of each, and whether the two agree on the first.
    """
    view = explorer.view
    before = view.logits(view.answer(view.receive(outputs)))
    after = fit(explorer, settings)[0].logits(view, outputs)
    both = {"before": _best(explorer, before), "after": _best(explorer, after)}
    return {**both, "agree": both["before"][0]["label"] == both["after"][0]["label"]}


def _best(explorer: Explorer, logits: torch.Tensor) -> list[Record]:
    probabilities, order = logits[0].softmax(0).sort(descending=True)
    return [
        {"label": explorer.dataset.classes[int(k)], "probability": float(p)}
        for p, k in zip(probabilities[:TOP], order[:TOP], strict=True)
    ]


def requested_config(explorer: Explorer, settings: SliderRequest) -> StudyConfig:
    """The configuration under which `secateurs prune` makes the same cut."""
    config = explorer.config
    low_deg = StudyConfig.low_deg if settings.low_deg is None else settings.low_deg
    return replace(
        config,
        layers=(explorer.layer,),
        rule=settings.rule,
        low_deg=low_deg,
        high_deg=180 - low_deg,
        norm_std=settings.norm_std,
        keep=None if settings.keep is None else (settings.keep,),
        keep_fraction=None,
        max_loss=None,
        compensation=settings.compensation,
    )


def command(explorer: Explorer, settings: SliderRequest) -> str:
    """The words with which `secateurs prune` makes the same cut, for a shell."""
    place, own = explorer.place, explorer.changes
    words = ["secateurs", "prune", str(place.model), place.data, "--layers", explorer.layer]
    words += ["--rule", settings.rule]
    if settings.low_deg is not None:
        words += ["--low-deg", f"{settings.low_deg:g}", "--high-deg", f"{180 - settings.low_deg:g}"]
    if settings.norm_std is not None:
        words += ["--norm-std", f"{settings.norm_std:g}"]
    words += ["--max-loss", "-1"] if settings.keep is None else ["--keep", str(settings.keep)]
    words += ["--compensation", settings.compensation]
    for name in ("split", "group_by", "seed"):
        if name in own:
            words += [f"--{name.replace('_', '-')}", str(own[name])]
    return shlex.join([*words, "--out", "DIR"])


def save_model(
    explorer: Explorer, settings: SliderRequest, out: Path, *, progress: Progress = SILENT
) -> Record:
    """Cut the network as `secateurs prune` does, checks included, and save it in `out`.

    Returns what `pruning.json` holds. `out` is there whole or not at all. Raises InputError when it
    holds anything, and as `cut` does, with nothing written.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out}: is there already and not empty; choose another name")
    config = requested_config(explorer, settings)
    made = cut_measured(explorer.measured, config, progress=progress)
    with atomic_folder(out) as folder:
        return save_cut(
            made,
            explorer.measured.model,
            explorer.loaded.spec,
            config,
            explorer.dataset,
            folder,
            before=explorer.before.to_json(),
        )
