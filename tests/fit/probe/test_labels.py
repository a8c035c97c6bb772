"""Improbable labels: the count of confident learning, written out, and what is flagged."""

from __future__ import annotations

import re

import numpy as np
import pytest
from numpy.typing import NDArray

from secateurs.errors import InputError
from secateurs.fit.probe.labels import scan_labels


def _problem(num: int = 300, *, seed: int = 0) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    generator = np.random.default_rng(seed)
    true = generator.integers(0, 4, num)
    logits = generator.normal(size=(num, 4)) + 2.5 * np.eye(4)[true]
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    return p, true


def _confident_joint(p: NDArray[np.float64], labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Equation 1 of Northcutt et al. 2021, image by image."""
    thresholds = [p[labels == j, j].mean() for j in range(p.shape[1])]
    joint = np.zeros((p.shape[1], p.shape[1]), dtype=np.int64)
    for row, label in zip(p, labels, strict=True):
        candidates = [j for j in range(len(row)) if row[j] >= thresholds[j]]
        if candidates:
            joint[label, max(candidates, key=lambda j: row[j])] += 1
    return joint


def test_as_many_are_flagged_as_confident_learning_counts_off_the_diagonal():
    p, labels = _problem()
    labels[:30] = (labels[:30] + 1) % 4
    found = scan_labels(p, labels)
    joint = _confident_joint(p, labels)
    assert found.num_flagged == joint.sum() - np.trace(joint) > 20
    assert found.flagged.sum() == found.num_flagged
    assert found.own[found.flagged].max() <= found.own[~found.flagged].min()


def test_flipped_labels_come_first():
    p, labels = _problem()
    flipped = np.arange(15)
    labels[flipped] = (labels[flipped] + 1) % 4
    found = scan_labels(p, labels)
    assert np.isin(flipped, found.order[:40]).mean() > 0.8
    assert np.array_equal(found.suggested, p.argmax(1))


def test_the_order_of_images_changes_nothing():
    p, labels = _problem()
    turned = scan_labels(p[::-1].copy(), labels[::-1].copy())
    found = scan_labels(p, labels)
    assert np.array_equal(turned.flagged[::-1], found.flagged)
    np.testing.assert_allclose(turned.thresholds, found.thresholds)


def test_classes_without_images_are_never_the_confident_one():
    p = np.array([[0.3, 0.1, 0.6], [0.2, 0.7, 0.1]])
    found = scan_labels(p, np.array([0, 1]))
    assert found.num_flagged == 0
    assert np.isnan(found.thresholds[2])


def test_shapes_are_checked():
    with pytest.raises(InputError, match=re.escape("must be (3 images, classes), got (2, 2)")):
        scan_labels(np.zeros((2, 2)), np.zeros(3, dtype=np.int64))
