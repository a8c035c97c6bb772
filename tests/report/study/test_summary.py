from __future__ import annotations

from typing import Any

from secateurs.report.study import captions, cautions, summary
from secateurs.report.study.evaluations import Evaluations, num_correct, shown_evaluations
from secateurs.report.study.schema import check_results
from secateurs.report.study.tables import counts_table, scores_table, sweep_table


def test_headline_counts_images(results: dict[str, Any]) -> None:
    before, after = (num_correct(results[top]["test"]) for top in ("chosen", "pruned"))
    assert before != after
    text = summary.headline(check_results(results))
    assert text == f"{before} of 135 test images correct; {after} after removing 97.1% of fc7"


def test_headline_without_pruning_and_without_a_choice(results: dict[str, Any]) -> None:
    results["pruned"] = None
    assert summary.headline(check_results(results)).endswith("nothing was pruned")
    results["chosen"] = None
    assert summary.headline(check_results(results)) == "faces: no model was chosen yet"


def test_tiles(results: dict[str, Any]) -> None:
    tiles = {tile.title: tile for tile in summary.tiles(check_results(results))}
    assert tiles["Chosen depth"].before == "5"
    assert tiles["Chosen depth"].note == "5 of 8 layers frozen; depths 3, 4 and 5 tried"
    assert (tiles["Parameters"].before, tiles["Parameters"].after) == ("57.0 M", "40.7 M")
    latency = tiles["Latency, smallest gain"]
    assert (latency.before, latency.after) == ("171 ms", "169 ms")
    assert latency.note == (
        "PyTorch, cpu, batch 32: no significant difference. The smallest gain of 4 measurements; "
        "the largest is 68.7% of the time before, ONNX Runtime, cpu, batch 1"
    )


def test_rounds_that_disagree_are_no_gain_on_the_first_screen(results: dict[str, Any]) -> None:
    for row in results["cost"]["latency"]:
        row["ratio_p75"] = 1.02
    checked = check_results(results)
    assert "batch 32: no significant difference" in summary.tiles(checked)[-1].note
    text = "No significant speed-up in 4 of 4 latency measurements: "
    assert any(text in one for one in cautions.warnings(checked))


def test_the_depth_is_called_recommended_where_it_is(results: dict[str, Any]) -> None:
    chosen = results["chosen"]["depth"]
    for depth, title in ((chosen, "Recommended depth"), (chosen - 1, "Chosen depth")):
        results["recommendation"] = {"depth": depth, "best": chosen, "sentences": ["Freeze them."]}
        assert summary.tiles(check_results(results))[0].title == title


def test_scratch_can_be_the_chosen_one(results: dict[str, Any]) -> None:
    scratch = results["trials"][-1]
    results["chosen"] |= {"key": scratch["key"], "depth": 0, "run": 1}
    assert summary.tiles(check_results(results))[0].before == "scratch"
    assert "Scratch was chosen" in captions.sweep_caption(check_results(results))


def test_no_warnings_where_all_is_well(results: dict[str, Any]) -> None:
    results["data"]["findings"] = []
    results["cost"]["latency"] = results["cost"]["latency"][:2]
    checked = check_results(results)
    assert cautions.warnings(checked) == []
    assert cautions.reassurance(checked) == (
        "No leakage, no finding in the audit of the image files, every class is predicted and "
        "the pruned network is faster in every latency measurement."
    )
    results["split"]["leakage"]["same_group"] = None
    results["cost"] = None
    assert cautions.reassurance(check_results(results)) == (
        "No test image is a duplicate of a training image, no finding in the audit of the image "
        "files and every class is predicted."
    )


def test_leakage_is_said_first(results: dict[str, Any]) -> None:
    results["split"]["leakage"] |= {"same_group": 130, "duplicate": 1}
    texts = cautions.warnings(check_results(results))
    assert texts[0].startswith("Leakage: 130 of 135 test images share a group with")
    assert texts[1].startswith("Leakage: 1 of 135 test images is a duplicate of a training image")
    lines = cautions.leakage_lines(check_results(results))
    assert [fine for _, _, fine in lines] == [False, False, True]
    assert "130 of 135 test images (96.3%)" in lines[0][1]


def test_unknown_groups_are_not_called_fine(results: dict[str, Any]) -> None:
    results["split"]["leakage"]["same_group"] = None
    what, text, fine = cautions.leakage_lines(check_results(results))[0]
    assert (what, fine) == ("Same group", None)
    assert "no groups were given" in text


def test_silent_classes_and_slow_pruning_are_said(results: dict[str, Any]) -> None:
    results["pruned"]["test"]["per_class"][5]["num_predicted"] = 0
    for row in results["cost"]["latency"]:
        row["after_ms"] = row["before_ms"]
    texts = " ".join(cautions.warnings(check_results(results)))
    assert "Never predicted after pruning: Sad." in texts
    assert "No significant speed-up in 4 of 4 latency measurements: PyTorch, cpu, batch 1," in texts


def test_a_gain_on_which_the_rounds_do_not_agree_is_none(results: dict[str, Any]) -> None:
    row = results["cost"]["latency"][0]
    row["after_ms"] = {key: 0.7 * value for key, value in row["before_ms"].items()}
    row["ratio_p75"] = 0.8
    others = len(cautions.warnings(check_results(results)))
    row["ratio_p75"] = 1.07
    texts = cautions.warnings(check_results(results))
    assert len(texts) >= others
    assert any("PyTorch, cpu, batch 1, 70.0% of the time before" in text for text in texts)


def test_a_diverged_trial_and_missing_weights_are_said(results: dict[str, Any]) -> None:
    results["trials"][0] |= {"stopped": "loss not finite", "val_accuracy": None}
    results["weights"]["loaded"] = []
    texts = " ".join(cautions.warnings(check_results(results)))
    assert "1 trial was stopped because the loss was not finite." in texts
    assert "No pretrained weights were loaded." in texts


def test_without_test_evaluation_validation_is_named(results: dict[str, Any]) -> None:
    results["chosen"]["test"] = results["pruned"]["test"] = None
    found = shown_evaluations(check_results(results))
    assert found is not None
    assert found.side == "validation"
    assert found.after == results["pruned"]["val"]
    assert any("were not evaluated" in text for text in cautions.warnings(check_results(results)))


def test_accuracy_is_compared_in_images(results: dict[str, Any]) -> None:
    found = shown_evaluations(check_results(results))
    assert found is not None
    moved = num_correct(found.before) - num_correct(found.after or {})
    note = summary.accuracy_note(found)
    assert note.endswith(
        f"{moved} images fewer correct after pruning ({100 * moved / 135:.1f} points)"
    )


def test_captions_take_their_numbers_from_the_results(results: dict[str, Any]) -> None:
    checked = check_results(results)
    assert "Freezing 5 layers has the highest mean" in captions.sweep_caption(checked)
    assert "smallest class, Disgust, has 75" in captions.data_caption(checked)
    layer = checked["pruned"]["layers"][0]
    text = captions.angles_caption(checked, layer)
    assert "The median angle between two units is 14°. 120 of 4,096 units of fc7 were kept" in text
    found = shown_evaluations(checked)
    assert found is not None
    counts = [row[:] for row in found.before["confusion"]]
    for index, row in enumerate(counts):
        row[index] = 0
    assert f"({max(map(max, counts))} images)" in captions.confusion_caption(
        found, checked["data"]["classes"]
    )


def test_tables_hold_the_numbers(results: dict[str, Any]) -> None:
    checked = check_results(results)
    assert counts_table(checked).rows[1] == ("Disgust", "45", "15", "15", "75")
    assert counts_table(checked).rows[-1] == ("all", "405", "135", "135", "675")
    assert sweep_table(checked).rows[-1][0] == "scratch"
    found = shown_evaluations(checked)
    assert found is not None
    found.before["per_class"][0]["precision"] = None
    assert scores_table(found).rows[0][2].startswith("– → ")


def test_captions_of_perfect_and_of_equal_classes_are_plain_sentences():
    right = {
        "num_images": 8,
        "confusion": [[4, 0], [0, 4]],
        "per_class": [{"class": "a", "recall": 1.0}, {"class": "b", "recall": 1.0}],
    }
    wrong = right | {"confusion": [[3, 1], [0, 4]]}
    perfect = Evaluations("test", right, None)
    assert captions.confusion_caption(perfect, ["a", "b"]) == (
        "On the 8 test images no class is confused with another."
    )
    assert captions.scores_caption(perfect) == "Every class has a recall of 100%."
    recalls = {"a": 1.0, "b": 1.0, "c": 0.5}
    shared = [{"class": name, "recall": recall} for name, recall in recalls.items()]
    assert captions.scores_caption(Evaluations("test", right | {"per_class": shared}, None)) == (
        "a and 1 other class have the highest recall (100%), c has the lowest (50%)."
    )
    assert captions.confusion_caption(Evaluations("test", right, wrong), ["a", "b"]) == (
        "On the 8 test images the most frequent confusion is a predicted as b (1 image) after "
        "pruning; before it no class is confused with another."
    )
    assert captions.confusion_caption(Evaluations("test", right, right), ["a", "b"]) == (
        "On the 8 test images no class is confused with another before and after pruning."
    )
