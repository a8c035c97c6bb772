"""Earlier names of options, which scripts may still use."""

from __future__ import annotations

from collections.abc import Collection, Mapping

RENAMED: Mapping[str, str] = {
    "--low": "--low-deg",
    "--high": "--high-deg",
    "--std": "--norm-std",
    "--rotation": "--rotation-deg",
    "--angles": "--angles-deg",
    "--stds": "--norm-stds",
    "--on": "--side",
    "--recover": "--recovery-epochs",
    "--recover-lr": "--recovery-lr",
    "--recover-distil": "--recovery-distil",
}


def current_names(
    words: list[str], known: Collection[str], taking_value: Collection[str]
) -> tuple[list[str], list[str]]:
    """The words with earlier names of options replaced, and a notice for each.

    `known` are the options of the command, `taking_value` those that are followed by a value,
    which is left as it is.

    >>> current_names(["x", "--low", "9", "--std=1"], {"--low-deg", "--norm-std"}, {"--low-deg"})
    (['x', '--low-deg', '9', '--norm-std=1'], ['--low is now --low-deg', '--std is now --norm-std'])
    """
    found: list[str] = []
    notices: list[str] = []
    is_value = False
    for at, word in enumerate(words):
        if word == "--" and not is_value:
            return found + words[at:], notices
        name, equals, value = word.partition("=")
        new = RENAMED.get(name, "")
        if not is_value and new in known and name not in known:
            notices.append(f"{name} is now {new}")
            name = new
        is_value = not is_value and not equals and name in taking_value
        found.append(name + equals + value)
    return found, notices
