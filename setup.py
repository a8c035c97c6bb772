"""The links of the package's metadata, which depend on where its repository is published.

SECATEURS_URL is the address under which files of the repository are shown, for instance
https://HOST/OWNER/NAME/blob/v0.1.0. With it, relative links of the README become absolute ones and
the project has its addresses. Without it, the long description has the text of such links only.
Everything else is in pyproject.toml.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from setuptools import setup

IMAGE = re.compile(r"!\[[^\]]*\]\((?!https?://)[^)]+\)\n*")
LINK = re.compile(r"(!?)\[([^\]]*)\]\((?!https?://|#)([^)\s]+)\)")


def long_description(text: str, url: str) -> str:
    """The README with absolute links to files under `url`, or without relative links."""
    if not url:
        return LINK.sub(r"\2", IMAGE.sub("", text))
    raw = url.replace("/blob/", "/raw/")  # pictures themselves, not pages about them
    return LINK.sub(
        lambda m: f"{m[1]}[{m[2]}]({raw if m[1] else url}/{m[3]})",
        text,
    )


def project_urls(url: str) -> dict[str, str]:
    """The addresses that an index shows beside the package."""
    if not url:
        return {}
    pages = {"Documentation": "docs/index.md", "Changelog": "CHANGELOG.md"}
    return {"Source": url.split("/blob/")[0]} | {k: f"{url}/{v}" for k, v in pages.items()}


if __name__ == "__main__":
    address = os.environ.get("SECATEURS_URL", "").rstrip("/")
    readme = Path(__file__).parent / "README.md"
    setup(
        long_description=long_description(readme.read_text(encoding="utf-8"), address),
        long_description_content_type="text/markdown",
        project_urls=project_urls(address),
    )
