"""Which sizes a study prunes to."""

from __future__ import annotations

import pytest

from secateurs.study.frontier.shrink import sizes_of


@pytest.mark.parametrize("max_mb", [1.0, 5.0, 9.1])
def test_buffers_and_header_count_for_a_limit_of_bytes(max_mb: float):
    # MobileNetV2 has 2.24 M parameters, and 0.18 MB of batch norm statistics and header.
    network = {"mb": 9.12, "num_parameters": 2_235_975, "ms": 7.0, "max_ms": None, "batch": 1}
    (found,) = sizes_of((), max_mb=max_mb, **network)
    assert found.ending == f"mb{max_mb:g}" and found.budget.size_mb is not None
    assert 0.97 * max_mb < found.budget.size_mb + 9.12 - 4 * 2.235975 <= max_mb
