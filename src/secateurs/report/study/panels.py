"""The panels of a study's page: figures with captions and data tables."""

from __future__ import annotations

from secateurs.report.common.canvas import Plot
from secateurs.report.common.formatting import integer, plural
from secateurs.report.common.panel import Panel, where
from secateurs.report.common.sweep_rows import Record
from secateurs.report.study import captions, figures, reduction_figures, splits, tables
from secateurs.report.study.evaluations import Evaluations, chosen_trial, shown_evaluations


def data_panel(results: Record) -> Panel:
    """Images per class and side."""
    caption = captions.data_caption(results)
    plot = Plot(figures.data_counts(results), "", f"Stacked bars, images per class. {caption}")
    return Panel(
        "counts",
        "Images per class",
        caption,
        (plot,),
        (tables.counts_table(results),),
        source=where("data", "split"),
    )


def sweep_panel(results: Record) -> Panel | None:
    """Validation accuracy over depth."""
    figure = figures.depth_sweep(results)
    if figure is None:
        return None
    caption = captions.sweep_caption(results)
    title = "Validation accuracy by number of frozen layers"
    plot = Plot(figure, "", f"Validation accuracy for each depth. {caption}")
    numbers = (
        tables.sweep_table(results),
        tables.runs_table(results),
        tables.trials_table(results),
    )
    return Panel("sweep", title, caption, (plot,), numbers, source=where("sweep", "trials"))


def splits_panel(results: Record) -> Panel | None:
    """The same sweep with a random split."""
    if not results["ungrouped"]:
        return None
    caption = splits.splits_caption(results)
    label = f"Mean validation accuracy for each depth under two splits. {caption}"
    plot = Plot(splits.splits_figure(results), "", label)
    title = "Effect of ignoring groups in the split"
    numbers = (splits.splits_table(results),)
    return Panel("splits", title, caption, (plot,), numbers, source=where("ungrouped", "sweep"))


def curves_panel(results: Record) -> Panel | None:
    """Loss and accuracy of the chosen trial."""
    trial = chosen_trial(results)
    plots: list[Plot] = []
    for measure in ("loss", "accuracy"):
        figure = figures.learning_curve(results, measure)
        if figure is not None:
            title = measure.capitalize()
            label = f"{title} on training and validation images, epoch by epoch."
            plots.append(Plot(figure, title, label))
    if trial is None or not plots:
        return None
    others = sum(1 for other in results["trials"] if other is not trial and other["curve"])
    switch = f"Show the validation curves of {plural(others, 'other trial')}" if others else ""
    return Panel(
        "curves",
        "Learning curves of the chosen trial",
        captions.curves_caption(results),
        tuple(plots),
        (tables.curve_table(trial),),
        switch=switch,
        wide=False,
        source=where("trials"),
    )


def class_panels(results: Record) -> list[Panel]:
    """Confusion matrices and scores of the classes, before and after pruning."""
    found = shown_evaluations(results)
    if found is None:
        return []
    return evaluation_panels(found, results["data"]["classes"], where("chosen", "pruned"))


def evaluation_panels(found: Evaluations, classes: list[str], source: str) -> list[Panel]:
    """The panels `confusion` and `scores` of one network, or of one before and after pruning."""
    pairs = [("Before pruning", found.before), ("After pruning", found.after)]
    shown = [(name, evaluation) for name, evaluation in pairs if evaluation]
    if len(shown) == 1:
        shown = [(f"On the {found.side} images", found.before)]
    confusion = Panel(
        "confusion",
        "Confusion matrix",
        captions.confusion_caption(found, classes),
        tuple(
            Plot(
                reduction_figures.confusion(evaluation, classes),
                name if len(shown) > 1 else "",
                f"{name}: confusion matrix of {plural(evaluation['num_images'], 'image')}, rows "
                "are true classes, columns predicted ones.",
            )
            for name, evaluation in shown
        ),
        tuple(tables.confusion_table(evaluation, classes, name) for name, evaluation in shown),
        wide=len(classes) > reduction_figures.MANY_CLASSES,
        source=source,
    )
    when = ", before and after pruning" if len(shown) > 1 else ""
    scores = Panel(
        "scores",
        "Precision, recall and specificity",
        captions.scores_caption(found),
        tuple(
            Plot(
                reduction_figures.class_scores(found, measure),
                measure.capitalize(),
                f"{measure.capitalize()} of each class{when}.",
            )
            for measure in reduction_figures.MEASURES
        ),
        (tables.scores_table(found),),
        open_tables=True,
        wide=False,
        source=source,
    )
    return [confusion, scores]


def angle_panels(results: Record) -> list[Panel]:
    """One panel per pruned layer that has a histogram."""
    layers = results["pruned"]["layers"] if results["pruned"] else []
    panels: list[Panel] = []
    for index, layer in enumerate(layers):
        figure = reduction_figures.angle_histogram(results, index)
        if figure is not None:
            caption = captions.angles_caption(results, layer)
            title = f"Angles between the units of {layer['layer']}"
            plot = Plot(figure, "", f"Histogram. {caption}")
            numbers = (tables.angles_table(layer),)
            source = where("pruned")
            panels.append(Panel(f"angles-{index}", title, caption, (plot,), numbers, source=source))
    return panels


def cost_panel(results: Record) -> Panel | None:
    """Parameters, operations and file size."""
    if not results["cost"]:
        return None
    figure, numbers = reduction_figures.cost_ratios(results), (tables.cost_table(results),)
    source = where("cost")
    if figure is None:
        text = "The network's size."
        return Panel("cost", "Size", text, (), numbers, open_tables=True, source=source)
    caption = captions.cost_caption(results)
    plot = Plot(figure, "", f"Bars, share of each cost left after pruning. {caption}")
    return Panel("cost", "Size before and after", caption, (plot,), numbers, source=source)


def latency_panel(results: Record) -> Panel | None:
    """Time per batch."""
    cost = results["cost"]
    rows: list[Record] = (cost and cost["latency"]) or []
    if not rows:
        return None
    batches = sorted({row["batch"] for row in rows})
    plots: list[Plot] = []
    for batch in batches:
        same = [row for row in rows if row["batch"] == batch]
        title = f"Batch of {integer(batch)}"
        label = (
            f"{title}: median time before and after pruning, with the middle half of the rounds."
        )
        plots.append(Plot(reduction_figures.latency(same), title, label))
    caption = cost["sentence"] or "Median time of one batch; the bar is the middle half."
    return Panel(
        "latency", "Latency", caption, tuple(plots), (tables.latency_table(rows),),
        wide=len(plots) == 1, source=where("cost"),
    )  # fmt: skip
