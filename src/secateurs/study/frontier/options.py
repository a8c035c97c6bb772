"""What a study over several networks is asked for, beside what any study is."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from secateurs.errors import InputError
from secateurs.limits import MAX_LISTED, check_fields
from secateurs.nets.stock import stock_name


@dataclass(frozen=True)
class FrontierOptions:
    """What the answer has to meet, and how far the study looks for it.

    `backbones` are the candidates, none for those whose weights can be had. The recommended network
    has at most `max_mb` (10**6 bytes of its weights), takes at most `max_ms` milliseconds for
    `batch` images in PyTorch on this device, and loses at most `max_loss` points of validation
    accuracy to the best. The probe chooses `num_networks` to fine-tune, each at up to `num_depths`
    depths. With `earlier_depths` a network's head also reads earlier depths where the probe gains
    by that. `sizes` are the shares of the multiply-accumulates to which each is pruned, by what is
    measured on `calibration` training images (None for all), with `recover` epochs of recovery
    after the `reconstruction` of blocks ("blocks", or None).
    With `refit` "all" the recommended network is trained once more on training and validation
    images together, with "train" it ships as it was chosen.
    `scratch_runs` trainings of the first network start from random weights, for comparison. With
    `int8` the recommended network also becomes an int8 file.
    """

    backbones: tuple[str, ...] = ()
    max_mb: float | None = None
    max_ms: float | None = None
    batch: int = 1
    max_loss: float = 1.0
    num_networks: int = 1
    num_depths: int = 2
    earlier_depths: bool = True
    sizes: tuple[float, ...] = (0.5, 0.25)
    calibration: int | None = 256
    reconstruction: str | None = "blocks"
    recover: int = 4
    refit: Literal["all", "train"] = "all"
    scratch_runs: int = 0
    int8: bool = True

    def __post_init__(self) -> None:
        check_fields(self)
        if self.refit not in ("all", "train"):
            raise InputError(f"refit must be all or train, got {self.refit!r:.40}")
        stock = [stock_name(name) for name in self.backbones]
        twice = next((name for name in stock if stock.count(name) > 1), None)
        if twice is not None:
            raise InputError(
                f"backbones: {twice} may be in a study once, got {', '.join(self.backbones)}"
            )

    def to_json(self) -> dict[str, Any]:
        """Plain data, as study.json and results.json keep it."""
        return asdict(self) | {"backbones": list(self.backbones), "sizes": list(self.sizes)}


FRONTIER_PRESETS: dict[str, FrontierOptions] = {
    "quick": FrontierOptions(),
    "full": FrontierOptions(num_networks=3, num_depths=3, sizes=(0.7, 0.5, 0.35, 0.25), recover=10),
}


def parse_backbones(text: str) -> tuple[str, ...]:
    """Names of networks from text with commas; none for the word auto.

    >>> parse_backbones("resnet18, timm:resnet18"), parse_backbones("auto")
    (('resnet18', 'timm:resnet18'), ())
    """
    names = tuple(part.strip() for part in text.split(","))
    if names == ("auto",):
        return ()
    if len(names) > MAX_LISTED or not all(names):
        raise InputError(f"backbones must look like auto, or resnet18,mobilenet_v2, got {text!r}")
    return names
