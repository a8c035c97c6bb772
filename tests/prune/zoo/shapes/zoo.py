"""All modules of the zoo by name."""

from __future__ import annotations

from collections.abc import Mapping

from shapes.activations import ACTIVATIONS
from shapes.attention_blocks import ATTENTION_BLOCKS
from shapes.branches import BRANCHES
from shapes.computed_weights import COMPUTED_WEIGHTS
from shapes.convolutions import CONVOLUTIONS
from shapes.entry import Entry
from shapes.found import FOUND
from shapes.inputs import INPUTS
from shapes.joins import JOINS
from shapes.networks import NETWORKS
from shapes.norms import NORMS
from shapes.parameters import PARAMETERS
from shapes.published import PUBLISHED
from shapes.recurrent import RECURRENT
from shapes.shared import SHARED
from shapes.transformers import TRANSFORMERS
from shapes.written_out import WRITTEN_OUT


def _together(**kinds: Mapping[str, Entry]) -> dict[str, tuple[str, Entry]]:
    found: dict[str, tuple[str, Entry]] = {}
    for kind, entries in kinds.items():
        for name, entry in entries.items():
            assert name not in found, f"two modules are named {name}"
            found[name] = (kind, entry)
    return found


OF_KIND = _together(
    activations=ACTIVATIONS,
    attention_blocks=ATTENTION_BLOCKS,
    branches=BRANCHES,
    computed_weights=COMPUTED_WEIGHTS,
    convolutions=CONVOLUTIONS,
    found=FOUND,
    inputs=INPUTS,
    joins=JOINS,
    networks=NETWORKS,
    norms=NORMS,
    parameters=PARAMETERS,
    published=PUBLISHED,
    recurrent=RECURRENT,
    shared=SHARED,
    transformers=TRANSFORMERS,
    written_out=WRITTEN_OUT,
)
ZOO = {name: entry for name, (_, entry) in OF_KIND.items()}
