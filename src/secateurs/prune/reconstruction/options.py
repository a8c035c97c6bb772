"""How blocks are tuned, and what came of it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from secateurs.errors import InputError
from secateurs.prune.compensation.batch_norm import Change

STEPS = 150


@dataclass(frozen=True)
class ReconstructionOptions:
    """How blocks are tuned.

    Each by up to `steps` of Adam of about `batch` samples at `rate` (see `tune`), as far as all of
    them take no more work than `passes` of the unpruned network over the samples, or than
    `little_work`; always eight, unless these take more than `work`. Work is in multiply-accumulates
    on a processor (50 times as many on an accelerator), forwards and backwards, with values that
    layers give counted as 30. Of what a block receives and gives `memory` bytes are held, and as
    many of what both networks give before it. The whole network is tuned to its outputs by
    `final_steps` in the end.
    """

    steps: int = STEPS
    final_steps: int = 0
    batch: int = 16
    rate: float = 0.03
    passes: float = 6.0
    little_work: float = 2e11
    work: float = 1.6e12
    memory: int = 2**29


def options_of(reconstruction: str | None) -> ReconstructionOptions | None:
    """What a word asks for: "blocks", or None for no reconstruction.

    >>> options_of(None) is None
    True
    """
    if reconstruction is None:
        return None
    if reconstruction != "blocks":
        raise InputError(f"reconstruction: expected 'blocks' or None, got {reconstruction!r:.40}")
    return ReconstructionOptions(steps=STEPS)


@dataclass(frozen=True)
class TunedBlock:
    """A block, and its squared error on samples left out, relative, before and after.

    `skipped` says why a block was not tuned.
    """

    name: str
    before: float | None = None
    after: float | None = None
    steps: int = 0
    skipped: str = ""


@dataclass(frozen=True)
class Reconstruction:
    """What was tuned on how many samples, and how long it took.

    `final` is the tuning of the whole network to its outputs, None where there was none. `change`
    is how far the outputs are from the unpruned network's afterwards, on samples that nothing was
    tuned on, and `used` whether that is nearer than before; otherwise the network stayed as it was.
    """

    blocks: tuple[TunedBlock, ...]
    final: TunedBlock | None
    num_samples: int
    seconds: float
    change: Change | None = None
    used: bool = False

    @property
    def num_better(self) -> int:
        """How many blocks came nearer to what they gave."""
        return sum(row.after is not None and row.after < (row.before or 0.0) for row in self.blocks)

    def to_json(self) -> dict[str, Any]:
        """Plain data, as under `reconstruction` in pruning.json."""
        found = asdict(self)
        return found | {"blocks": [*found["blocks"]]}
