from __future__ import annotations

import numpy as np
import pytest

from secateurs.errors import InputError
from secateurs.study.frontier.recommendation import Limits, Network, recommend_network

ANY = Limits(None, None, 1.0)


def network(name: str, mb: float, right: int, *, ms: float = 1.0, of: int = 200) -> Network:
    correct = np.zeros(of, bool)
    correct[:right] = True
    return Network(name, mb, ms, correct)


def test_the_smallest_that_is_as_good_is_recommended():
    found = recommend_network(
        [network("large", 9, 180), network("middle", 5, 179), network("small", 2, 150)], ANY
    )
    assert (found.name, found.best, found.meets) == ("middle", "large", True)
    assert set(found.as_good) == {"large", "middle"}
    assert found.to_best["small"].difference == pytest.approx(-0.15)


def test_a_difference_beyond_the_allowed_loss_counts_even_if_not_significant():
    few = [network("large", 9, 18, of=20), network("small", 2, 17, of=20)]
    assert recommend_network(few, ANY).to_best["small"].p_value == 1.0
    assert recommend_network(few, ANY).name == "large"
    assert recommend_network(few, Limits(None, None, 5.0)).name == "small"


def test_a_significant_difference_counts_even_within_the_allowed_loss():
    many = [network("large", 9, 1990, of=2000), network("small", 2, 1975, of=2000)]
    assert recommend_network(many, ANY).name == "large"


def test_limits_leave_networks_out():
    networks = [network("large", 9, 190), network("slow", 3, 185, ms=9), network("small", 2, 150)]
    found = recommend_network(networks, Limits(5, 5, 1.0))
    assert (found.name, found.best) == ("small", "small")
    assert "2 networks are beyond 5 MB or 5 ms." in found.sentences


def test_what_the_limits_cost_is_said():
    found = recommend_network(
        [network("large", 9, 190), network("small", 3, 140)], Limits(5, None, 1)
    )
    assert found.name == "small"
    assert "1 network is beyond 5 MB." in found.sentences
    assert "Beyond the limits large has 95.0% on validation with 9.0 MB" in found.sentences[-1]


def test_when_nothing_is_within_the_limits_the_nearest_is_shown():
    networks = [network("large", 9, 190), network("small", 6, 150)]
    found = recommend_network(networks, Limits(4, None, 1.0))
    assert (found.name, found.meets) == ("small", False)
    assert "at 1.5 times the limit" in found.sentences[1]
    assert "Beyond the limits large has 95.0%" in found.sentences[2]


def test_of_equal_networks_the_smallest_then_the_first_whatever_the_clock_says():
    networks = [network("c", 4, 150), network("a", 3, 150, ms=2), network("b", 3, 150, ms=1)]
    assert recommend_network(networks, ANY).name == "a"
    assert recommend_network(networks, ANY).best == "a"


def test_of_networks_of_one_size_the_more_accurate_whatever_the_clock_says():
    networks = [network("probe", 3, 199, ms=1), network("tuned", 3, 200, ms=2)]
    assert recommend_network(networks, ANY).name == "tuned"


def test_without_networks_there_is_nothing_to_recommend():
    with pytest.raises(InputError, match="nothing to recommend"):
        recommend_network([], ANY)
