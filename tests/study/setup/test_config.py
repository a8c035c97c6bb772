from __future__ import annotations

import re
from types import SimpleNamespace
from typing import Any

import pytest

from secateurs.errors import InputError
from secateurs.study.saved.opened import own_config
from secateurs.study.setup.config import (
    PRESETS,
    StudyConfig,
    difference,
    from_json,
    from_preset,
    parse_batch_size,
    parse_depths,
    rule_of,
)


def test_plain_data_and_back():
    for config in PRESETS.values():
        assert from_json(config.to_json()) == config


def test_words_of_a_preset():
    config = from_preset("full", runs=3, views=0, batch_size="full", lr=None)
    assert (config.runs, config.views, config.batch_size) == (3, None, None)
    assert config.lr == PRESETS["full"].lr
    assert from_preset("quick", batch_size="16").batch_size == 16


def test_every_run_has_its_own_seed():
    config = StudyConfig(seed=5)
    assert [config.fit_config(run=run).seed for run in range(3)] == [5, 6, 7]


def test_views_have_the_shape_of_the_evaluation_picture():
    straight, crop = (StudyConfig(resize=way).augmentation() for way in ("straight", "crop"))
    assert straight is not None
    assert crop is not None
    assert (straight.ratio_to, crop.ratio_to) == ("image", "square")
    assert StudyConfig(augment=False).augmentation() is None


@pytest.mark.parametrize(
    ("text", "depths"),
    [("0-7", tuple(range(8))), ("5,6", (5, 6)), ("6, 5,5", (5, 6)), ("1-2,4", (1, 2, 4))],
)
def test_depths(text: str, depths: tuple[int, ...]):
    assert parse_depths(text) == depths


@pytest.mark.parametrize("text", ["", "a", "3-", "-1", "1..3", "2,,3"])
def test_bad_depths(text: str):
    with pytest.raises(InputError, match="depths must look like 0-7 or 3,5,7"):
        parse_depths(text)


def test_backward_depths():
    with pytest.raises(InputError, match="depths '7-5' run backwards; write 5-7"):
        parse_depths("7-5")


@pytest.mark.parametrize("text", ["0", "-3", "many", "1.5"])
def test_bad_batch_sizes(text: str):
    with pytest.raises(InputError, match="batch size must be a positive number or full"):
        parse_batch_size(text)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"runs": 0}, "runs is out of range: 0"),
        ({"lr": -1.0}, "lr is out of range: -1.0"),
        ({"split": "half"}, "split is out of range: 'half'"),
        ({"resize": "stretch"}, "resize is out of range"),
        ({"compensation": "hope"}, "compensation: expected one of drop, add"),
        ({"rule": "luck"}, "rule: expected one of pairwise, cluster"),
        ({"keep": (3, 4)}, "keep: expected one number or 1, got 2"),
        ({"keep": (0,)}, "keep is out of range: 0"),
        ({"rule": "l2", "max_loss": None}, "rule l2 needs a number of units to keep"),
        ({"max_loss": -1.0}, "max_loss is out of range: -1.0"),
        ({"keep_epoch": "first"}, "keep is out of range: 'first'"),
        ({"keep_epoch": "last", "patience": 2}, "keep last: leave patience out"),
        ({"min_scale": 0.0}, "min_scale is out of range: 0.0"),
    ],
)
def test_bad_values(changes: dict, text: str):
    with pytest.raises(InputError, match=text):
        StudyConfig(**changes)


def test_unknown_preset_and_foreign_fields():
    with pytest.raises(InputError, match="unknown preset 'slow'; there are quick, full"):
        from_preset("slow")
    with pytest.raises(InputError, match="another version: it differs in colour"):
        from_json(StudyConfig().to_json() | {"colour": 1})


def test_difference_is_in_words():
    a, b = StudyConfig().to_json(), StudyConfig(lr=0.5, depths=(1,)).to_json()
    assert difference(a, b) == "depths ([3, 5, 7] there, [1] now), lr (0.0001 there, 0.5 now)"


def test_a_configuration_from_before_there_were_rules_goes_by_angle():
    plain = from_preset("quick", rule="pairwise", max_loss=-1.0).to_json()
    del plain["rule"]
    assert from_json(plain).rule == "pairwise"


def test_the_rule_that_words_ask_for():
    assert rule_of(None, low=None, std=None) == "cluster"
    assert rule_of(None, low=None, std=1.0) == "pairwise"
    assert rule_of(None, search=False, low=None) == "pairwise"
    assert rule_of("subspace", low=12.0) == "subspace"
    with pytest.raises(InputError, match="low: rule cluster goes by number, not by angle"):
        rule_of("cluster", low=12.0)


def test_a_network_keeps_its_own_number_of_units_until_it_is_pruned_again():
    own = from_preset("quick", rule="l2", keep=(64,), max_loss=-1.0)
    spec = SimpleNamespace(backbone="alexnet", extra={"config": own.to_json()})
    assert own_config(spec, {"split": None, "seed": 3}).keep == (64,)
    pruned = own_config(spec, {"rule": "cluster", "keep": None, "keep_fraction": 0.1})
    assert (pruned.keep, pruned.keep_fraction, pruned.rule) == (None, 0.1, "cluster")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": "x"}, "configuration.seed: expected int, got 'x'"),
        ({"seed": True}, "configuration.seed: expected int, got True"),
        ({"seed": 10**40}, "configuration.seed: expected int"),
        ({"depths": 3}, "configuration.depths: expected a list of int, got 3"),
        ({"depths": ["a"]}, "configuration.depths: expected a list of int"),
        ({"layers": [None]}, "configuration.layers: expected a list of str"),
        ({"keep": 4}, "configuration.keep: expected a list of int or null, got 4"),
        ({"lr": None}, "configuration.lr: expected float, got None"),
        ({"lr": float("nan")}, "lr"),
        ({"rule": ["l2"]}, "configuration.rule: expected one of"),
        ({"resize": 7}, "configuration.resize: expected one of straight, crop, got 7"),
        ({"group_by": {}}, "configuration.group_by: expected str or null"),
        ({"augment": "no"}, "configuration.augment: expected bool"),
    ],
)
def test_a_stored_configuration_of_wrong_types_is_refused(change: dict[str, Any], message: str):
    plain = from_preset("quick").to_json()
    assert from_json(plain) == from_preset("quick")
    with pytest.raises(InputError, match=re.escape(message)):
        from_json(plain | change)


@pytest.mark.parametrize("plain", [None, [], "x", 3, {}, {"depths": []}])
def test_what_is_no_configuration_is_refused(plain: Any):
    with pytest.raises(InputError, match="configuration: expected an object"):
        from_json(plain)
