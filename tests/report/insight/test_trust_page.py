"""The page of trust, for two networks and for one."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from example_trust import example_trust

from secateurs.report.insight.trust import trust_panels, trust_words, worst_change
from secateurs.report.insight.trust_page import render_trust, write_trust_page


@pytest.fixture
def trust() -> dict[str, Any]:
    return example_trust()


def shown(page: str) -> str:
    bare = re.sub(r"<(script|style).*?</\1>", " ", page, flags=re.S)
    return " ".join(re.sub(r"<[^>]+>", " ", bare).split())


@pytest.mark.usefixtures("without_plotly")
def test_the_page_says_where_pruning_costs_most(trust: dict[str, Any], tmp_path: Path):
    page = write_trust_page(trust, tmp_path).read_text(encoding="utf-8")
    text = shown(page)
    assert "Pruning costs 13 points on images with noise" in text
    assert "-13.0 points (-16.0 to -10.0); on clean images -1.0 points (-4.0 to +2.0)" in text
    assert "expected calibration error 5.6% (16.8% before temperature scaling" in text
    assert (
        "60% of the images have a confidence of at least 70%, and 88.0% (70–99) of these are"
        in text
    )
    assert "after pruning 4 have fewer correct images and 2 more" in text
    assert "012 4 3 1" in text
    assert "rarer classes (50) 70.0% (65–75) 66.0% (61–71) -4.0 (-7.0 to -1.0)" in text
    assert page.count('role="img"') == 4 + 3  # figures, and pictures that are missing here
    assert re.search(r"(src|href)=\"(?!#)", page) is None


@pytest.mark.usefixtures("without_plotly")
def test_one_network_is_compared_with_nothing(trust: dict[str, Any]):
    for part in (trust["networks"], trust["clean"], *trust["corruptions"], *trust["rare"]):
        part.pop("after")
        if "difference" in part:
            part["difference"] = None
    trust["groups"]["all_wrong"].pop("after")
    trust["groups"]["rows"][0].pop("after")
    trust["side"] = "val"
    trust["mistakes"] |= {"network": "before", "losses": []}
    text = shown(render_trust(trust))
    assert re.search(r"Groups without a correct image: \d+\. ", text)
    assert "81% on clean images, 60% under blur" in text
    assert "pruning" not in text.replace("before pruning", "")
    assert "chosen on these images: calibration and accuracy are too optimistic" in text
    assert worst_change(trust) is None


def test_a_change_that_is_not_significant_is_called_so(trust: dict[str, Any]):
    for row in (*trust["corruptions"], *trust["rare"]):
        row["difference"] = {"mean": -0.01, "low": -0.04, "high": 0.02}
    trust["corruptions"][-1] |= {"name": "dark"}
    trust["corruptions"][-1]["difference"] = {"mean": -0.02, "low": -0.05, "high": 0.02}
    words = trust_words(trust)[-1]
    assert words.startswith("Pruning costs most on darkened images: -2.0 points")
    assert "not significant" in words
    assert "changes no part of the accuracy significantly" in shown(render_trust(trust))


def test_without_a_threshold_the_table_says_none(trust: dict[str, Any]):
    trust["networks"]["after"]["confidence"]["threshold"] = None
    trust["networks"]["after"]["answered"] = None
    [panel] = [one for one in trust_panels(trust) if one.key == "coverage"]
    assert panel.tables[0].rows[1] == ("after pruning", "1.30", "none", "", "")
    assert "no threshold reaches 90% accuracy" in trust_words(trust)[1]


@pytest.mark.usefixtures("without_plotly")
def test_confused_classes_have_example_pairs(trust: dict[str, Any], tmp_path: Path):
    (tmp_path / "thumbnails").mkdir()
    (tmp_path / "thumbnails/mistake-0.jpg").write_bytes(b"\xff\xd8\xff picture")
    page = render_trust(trust, tmp_path)
    text = shown(page)
    assert (
        "cat taken for dog 6 images of 40 labelled cat (4 before pruning, 6 after pruning)." in text
    )
    assert "wrong after pruning dog 98%" in text
    assert page.count("data:image/jpeg;base64,") == 3
    (tmp_path / "thumbnails/mistake-map-0-after.jpg").write_bytes(b"\xff\xd8\xff map")
    page = render_trust(trust, tmp_path)
    assert page.count('alt="cat/1.jpg: where it looked, after pruning"') == 2
    trust["mistakes"]["losses"] = []
    assert "There is no mistake of the network after pruning on these images" in shown(
        render_trust(trust)
    )
