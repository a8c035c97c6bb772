"""The picture of the README: the first screen of a study's report, in headless Chromium.

`make study && python docs/scripts/report_picture.py studies/faces/report.html` writes
docs/pictures/report.png.
"""

from __future__ import annotations

import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

PICTURE = Path(__file__).parents[1] / "pictures" / "report.png"
WIDTH, HEIGHT = 1200, 1480
COLOURS = 128


def main() -> None:
    """Draw the page and keep its first screen."""
    page_file = Path(sys.argv[1]).resolve()
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
        page.goto(page_file.as_uri())
        page.wait_for_selector("html[data-drawn]", timeout=90_000)
        page.screenshot(path=PICTURE)
        browser.close()
    with Image.open(PICTURE) as drawn:
        few = drawn.convert("RGB").quantize(COLOURS)
    few.save(PICTURE, optimize=True)
    print(PICTURE)


if __name__ == "__main__":
    main()
