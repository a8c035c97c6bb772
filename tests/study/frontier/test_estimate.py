from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from secateurs.errors import InputError
from secateurs.fit.paired import paired_difference
from secateurs.study.frontier.estimate import Judged, compare
from secateurs.study.frontier.recommendation import Limits, Network, recommend_network

VAL, TRAIN = 60, 180


def draw(seed: int, *, luck: float = 0.0) -> tuple[Judged, Judged, list[str], list[str]]:
    """A fine-tuned network and its probe; the probe's validation images are easier by `luck`."""
    draws = np.random.default_rng(seed)
    hard = draws.random(TRAIN + VAL)
    hard[TRAIN:] -= luck
    probe = hard < 0.75
    tuned = (hard[TRAIN:] + 0.1 * draws.standard_normal(VAL)) < 0.8
    groups = [f"g{place // 3}" for place in range(TRAIN + VAL)]
    return Judged(tuned, probe), Judged(probe[TRAIN:], probe), groups[TRAIN:], groups


def test_a_probe_has_the_accuracy_of_all_images():
    _, probe, _, _ = draw(0)
    assert probe.control is not None
    assert probe.share == pytest.approx(1)
    assert probe.accuracy == pytest.approx(probe.control.mean())


def test_the_estimate_is_a_regression_on_the_probe():
    tuned, probe, _, _ = draw(1)
    slope = stats.linregress(probe.correct.astype(float), tuned.correct.astype(float)).slope
    assert probe.control is not None
    wanted = tuned.correct.mean() - slope * (probe.correct.mean() - probe.control.mean())
    assert tuned.share == pytest.approx(slope)
    assert tuned.accuracy == pytest.approx(wanted)


def test_easy_validation_images_do_not_flatter_the_probe():
    plain = [Judged(one.correct) for one in draw(4, luck=0.2)[:2]]
    adjusted = draw(4, luck=0.2)[:2]
    truth = 0.75  # of the probe; the validation images alone say much more
    assert plain[1].accuracy > truth + 0.1
    assert abs(adjusted[1].accuracy - truth) < 0.08
    assert adjusted[0].accuracy < plain[0].accuracy


def test_a_difference_is_what_loops_over_images_and_groups_give():
    tuned, probe, groups, all_groups = draw(2)
    found = compare(tuned, probe, groups, all_groups)
    assert found.difference == pytest.approx(tuned.accuracy - probe.accuracy)
    assert tuned.control is not None
    share, control = tuned.share - 1, tuned.control.astype(float)
    gap = [
        float(a) - float(b) - share * c
        for a, b, c in zip(tuned.correct, probe.correct, control[TRAIN:], strict=True)
    ]
    sums: dict[str, float] = {}
    for place, group in enumerate(all_groups):
        part = share * (control[place] - control.mean()) / (TRAIN + VAL)
        if place >= TRAIN:
            part += (gap[place - TRAIN] - np.mean(gap)) / VAL
        sums[group] = sums.get(group, 0.0) + part
    error = np.sqrt(sum(part**2 for part in sums.values()) * len(sums) / (len(sums) - 1))
    freedom = len(set(groups)) - 1
    assert found.p_value == pytest.approx(2 * stats.t.sf(abs(found.difference) / error, freedom))
    assert found.high - found.low == pytest.approx(2 * error * stats.t.ppf(0.975, freedom))


def test_without_a_control_it_is_the_paired_difference():
    tuned, probe, groups, all_groups = draw(3)
    wanted = paired_difference(tuned.correct, probe.correct, groups)
    assert compare(Judged(tuned.correct), probe, groups, all_groups) == wanted
    assert compare(tuned, tuned, None, None) == paired_difference(tuned.correct, tuned.correct)


def test_over_many_draws_the_estimate_is_right_and_steadier_than_validation_alone():
    found = [draw(seed)[0] for seed in range(400)]
    alone = np.array([one.correct.mean() for one in found])
    adjusted = np.array([one.accuracy for one in found])
    truth = np.mean([draw(seed)[0].correct.mean() for seed in range(1000, 2000)])
    assert adjusted.mean() == pytest.approx(truth, abs=0.006)
    assert adjusted.std() < 0.85 * alone.std()


def test_a_difference_of_nothing_is_called_significant_one_time_in_twenty():
    rejected = 0
    for seed in range(400):
        draws = np.random.default_rng(seed)
        probe = draws.random(TRAIN + VAL) < 0.7
        same = Judged(draws.random(VAL) < 0.7)  # as good, and independent
        control = Judged(same.correct, draws.random(TRAIN + VAL) < 0.7)
        rejected += compare(control, Judged(probe[TRAIN:], probe)).p_value < 0.05
    assert 0.02 < rejected / 400 < 0.09


def test_a_lucky_probe_is_not_recommended_over_the_network_that_was_fine_tuned():
    # On validation both are right on 45 of 50; out of their groups the probe is right on 60%.
    control = np.r_[np.arange(150) % 10 < 6, np.arange(50) >= 5]
    tuned = np.r_[np.zeros(2, bool), np.ones(45, bool), np.zeros(3, bool)]
    networks = [Network("tuned", 9.0, 5.0, tuned), Network("probe", 8.0, 5.0, control[150:])]
    assert recommend_network(networks, Limits(None, None, 1.0)).name == "probe"
    known = [Network(n.name, n.mb, n.ms, n.correct, control) for n in networks]
    answer = recommend_network(known, Limits(None, None, 1.0))
    assert answer.name == "tuned"
    assert answer.accuracy["probe"] == pytest.approx(control.mean())
    assert "adjusted by cross-validation" in answer.sentences[0]


def test_a_control_without_the_validation_images_is_refused():
    with pytest.raises(InputError, match="must have the 60 validation images last, got 10 images"):
        Judged(np.ones(VAL, bool), np.ones(10, bool))
