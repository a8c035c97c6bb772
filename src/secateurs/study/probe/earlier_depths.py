"""A network whose head also reads earlier depths, from the probe of the stock network."""

from __future__ import annotations

from dataclasses import replace

from secateurs.nets.stock import EARLIER
from secateurs.nets.weights import load_pretrained
from secateurs.study.probe.network import NetworkProbe
from secateurs.study.setup.trial_context import TrialContext, seeded_model


def with_earlier_depths(
    context: TrialContext, found: NetworkProbe
) -> tuple[TrialContext, NetworkProbe]:
    """The context and the probe of the network that reads the depths which `found.earlier` is of.

    Its depths know what those of the network do, but for the last, where the classifier reads all.
    """
    earlier, row = found.earlier, found.record["earlier"]
    assert earlier is not None
    name = EARLIER.join([found.name, *row["paths"]])
    config = replace(context.config, backbone=name)
    model = seeded_model(name, len(context.dataset.classes), config.seed)
    weights = load_pretrained(model, name, context.weights_file, cache=context.cache)
    last = found.record["num_depths"] - 1
    own = {key: value for key, value in row.items() if key not in ("paths", "gain")}
    record = found.record | {
        "backbone": name,
        "weights": weights.to_json(),
        "num_parameters": sum(parameter.numel() for parameter in model.parameters()),
        "depths": [old | own if old["depth"] == last else old for old in found.record["depths"]],
    }
    return (
        replace(context, config=config, weights=weights, head=earlier.head),
        NetworkProbe(
            record,
            found.train_scores | {last: earlier.train_scores},
            found.val_scores | {last: earlier.val_scores},
            earlier.head,
        ),
    )
