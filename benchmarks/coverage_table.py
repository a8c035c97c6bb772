"""What `coverage.py` found, as rows and as tables."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Row:
    """What became of one network; `failures` is empty when it passed all its steps."""

    network: str
    size: int = 0
    groups_cut: int = 0
    left_whole: int = 0
    first_reason: str = ""
    refused: dict[str, str] = field(default_factory=dict)  # groups whose check failed, and why
    parameters_fraction: float | None = None
    macs_fraction: float | None = None
    parity: float | None = None
    effect: float | None = None  # how much the cut changes the outputs: else parity means nothing
    saved: str = ""
    onnx: float | None = None  # of 1 or the largest logit
    largest_logit: float | None = None
    latency_ratio: float | None = None
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    peak_gib: float = 0.0
    step: str = "starting"  # the one that runs
    step_seconds: dict[str, float] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)


def number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def short(text: str, width: int = 90) -> str:
    text = text.replace("|", "/")
    return text if len(text) <= width else f"{text[: width - 3]}..."


def table(rows: list[Row]) -> str:
    lines = [
        "| network | groups cut | left whole | parameters left | MACs left | parity "
        "| saved and loaded | ONNX difference | latency ratio, batch 1 | CPU seconds | peak GiB "
        "| passed all |",
        "|---" * 12 + "|",
    ]
    for row in rows:
        cells = [
            row.network,
            str(row.groups_cut),
            f"{row.left_whole} ({short(row.first_reason)})" if row.left_whole else "0",
            number(row.parameters_fraction, ".0%"),
            number(row.macs_fraction, ".0%"),
            number(row.parity, ".0e"),
            row.saved,
            number(row.onnx, ".0e"),
            number(row.latency_ratio, ".2f"),
            f"{row.cpu_seconds:.0f}",
            f"{row.peak_gib:.1f}",
            "no" if row.failures else "yes",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def failures(rows: list[Row]) -> str:
    passed = sum(not row.failures for row in rows)
    lines = [f"{passed} of {len(rows)} networks pass all."]
    for row in rows:
        lines += [f"- {row.network}, {name}: {why}" for name, why in row.failures.items()]
    refused = {row.network: row.refused for row in rows if row.refused}
    if refused:
        lines.append("\nGroups left whole because the check refused them:")
    for network, reasons in refused.items():
        name, why = next(iter(reasons.items()))
        lines.append(f"- {network}: {len(reasons)}, the first {name}: {why}")
    return "\n".join(lines)
