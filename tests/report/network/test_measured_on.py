from __future__ import annotations

from secateurs.report.network.measured_on import calibration, reconstruction


def test_records_of_older_versions_say_nothing():
    assert calibration({}) == "" and reconstruction({}) == ""
    assert reconstruction({"reconstruction": None}) == ""


def test_which_images_were_used():
    record = {"num_images": 256, "of": 1005, "mirrored": True}
    assert calibration({"calibration": record}) == (
        " 256 of 1,005 training images, and their mirror images, were used before any recovery."
    )
    record = {"num_images": 90, "of": 90, "mirrored": False}
    assert calibration({"calibration": record}) == (
        " All 90 training images were used before any recovery."
    )


def test_why_no_block_was_tuned():
    blocks = [{"name": "all", "before": None, "after": None, "skipped": "fewer than 10 samples"}]
    assert reconstruction({"reconstruction": {"blocks": blocks}}) == (
        " Blocks were not tuned: fewer than 10 samples."
    )


def test_what_came_of_the_reconstruction():
    blocks = [
        {"name": "a", "before": 0.2, "after": 0.1},
        {"name": "b", "before": 0.2, "after": 0.2},
        {"name": "c", "before": None, "after": None},
    ]
    found = {"blocks": blocks, "seconds": 12.0, "change": {"squared": 0.5}, "used": True}
    record = {"reconstruction": found, "outcome": {"measured": 0.75}}
    assert reconstruction(record) == (
        " Reconstruction without labels brought 1 of 3 blocks nearer to the unpruned network in "
        "12.0 s; the mean squared change of the outputs on validation images is 0.5, 0.75 before."
    )
    unused = record | {"reconstruction": found | {"used": False}}
    assert reconstruction(unused).endswith("is 0.5, 0.75 before, so it was not used.")
    assert reconstruction({"reconstruction": found | {"change": None}}).endswith("in 12.0 s.")
