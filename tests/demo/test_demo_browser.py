"""The page in Chromium: the answers of PyTorch, no request, the camera, what cannot be read."""

from __future__ import annotations

import base64
import functools
import http.server
import json
import threading
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from browsing import violations
from PIL import Image, ImageCms, ImageDraw

from secateurs.data.images.decode import decode
from secateurs.demo import page as page_module
from secateurs.demo.export_demo import entry_of
from secateurs.demo.page import DemoModel, columns_first, server_line, write_demo
from secateurs.demo.runtime import Runtime, find_runtime
from secateurs.errors import InputError
from secateurs.files import cache_dir
from secateurs.nets.backbones import build
from secateurs.ship.checkpoint import save
from secateurs.ship.spec import ImageInput, describe
from secateurs.study.saved.prediction import predict_saved
from secateurs.study.saved.prediction_model import classifier_of, load_saved

pytestmark = pytest.mark.browser

CLASSES = ("across", "down", "plain")
CROP = ImageInput(64, "crop", (0.5, 0.4, 0.3), (0.25, 0.2, 0.3))
BICUBIC = ImageInput(64, "straight", (0.48, 0.45, 0.4), (0.2, 0.2, 0.2), "bicubic")
PUT = """([text, kind]) => {
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const transfer = new DataTransfer();
  transfer.items.add(new File([bytes], "given.png", { type: "image/png" }));
  const options = { bubbles: true, cancelable: true };
  document.body.dispatchEvent(kind === "paste"
    ? new ClipboardEvent("paste", { ...options, clipboardData: transfer })
    : new DragEvent("drop", { ...options, dataTransfer: transfer }));
}"""
OWN = Path(page_module.__file__).parent / "templates"


@pytest.fixture(scope="module")
def runtime() -> Runtime:
    try:
        return find_runtime(None, cache=cache_dir())
    except InputError as error:
        pytest.skip(f"ONNX Runtime Web is neither in the cache nor to be had: {error}")


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved network whose answers differ between images, with a temperature and a threshold."""
    torch.manual_seed(0)
    network = build("squeezenet1_1", 3).eval()
    known = {"temperature": 0.1, "threshold": 0.7}
    spec = describe(network, "squeezenet1_1", CLASSES, CROP, extra={"confidence": known})
    return save(network, spec, tmp_path_factory.mktemp("demo") / "small").parent


@pytest.fixture(scope="module")
def entry(saved: Path, pictures: list[Path]) -> DemoModel:
    found = entry_of(saved, pictures[0], "Before")
    assert found.max_abs_difference is not None and found.max_abs_difference < 1e-4
    assert found.model.facts["Numbers"] == "float32"
    return found.model


@pytest.fixture(scope="module")
def pictures(flags: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """PNG and JPEG files: upright and turned by EXIF, with a colour profile, transparent, wide."""
    folder = tmp_path_factory.mktemp("pictures")
    scene = Image.new("RGB", (640, 420))
    paint = ImageDraw.Draw(scene)
    for row in range(420):
        paint.line([(0, row), (640, row)], fill=(row // 2, 200 - row // 3, 90 + row // 4))
    paint.ellipse([120, 90, 380, 330], fill=(230, 180, 60))
    paint.rectangle([420, 40, 560, 400], fill=(40, 60, 180))
    files: list[Path] = [sorted((flags / name).iterdir())[0] for name in CLASSES]

    def kept(name: str, image: Image.Image, **options: Any) -> None:
        image.save(folder / name, **options)
        files.append(folder / name)

    kept("photo.jpg", scene, quality=92)
    for turn in (3, 5, 6, 8):
        exif = Image.Exif()
        exif[0x0112] = turn
        kept(f"turned{turn}.jpg", scene, quality=90, exif=exif)
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("XYZ")).tobytes()
    kept("profile.png", scene.resize((200, 150)), icc_profile=profile)
    clear = scene.resize((120, 90)).convert("RGBA")
    clear.putalpha(Image.linear_gradient("L").resize((120, 90)))
    kept("clear.png", clear)
    kept("grey.png", scene.convert("L").resize((33, 77)))
    kept("strip.png", scene.resize((900, 40)))
    return files


@pytest.fixture
def context(browser: Any) -> Generator[Any]:
    opened = browser.new_context(viewport={"width": 1280, "height": 900}, offline=True)
    yield opened
    opened.close()


def open_page(context: Any, address: str, *, fails: bool = False) -> tuple[Any, list[str]]:
    page = context.new_page()
    page.set_default_timeout(90_000)
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: complaints.append(f"asked for {request.url}"))
    page.goto(address, timeout=90_000)
    page.wait_for_selector("html[data-ready], html[data-failed]")
    failed = page.get_attribute("html", "data-failed")
    assert (failed is not None) == fails, failed
    return page, complaints


def answers_of(page: Any, files: list[Path], times: int = 1) -> list[Any]:
    """Give the page files; what it found for each, in their order."""
    page.set_input_files("#file", [str(path) for path in files])
    page.wait_for_selector(f"html[data-added='{times}']")
    cards = page.query_selector_all("#cards .card")[: len(files)]
    found = [json.loads(card.get_attribute("data-answers") or "null") for card in cards]
    return found[::-1]  # the newest stands first


def test_images_are_resized_as_pillow_does(browser: Any):
    code = (OWN / "resize.js").read_text(encoding="utf-8")
    run = """([text, width, height, wanted]) => { %s
      const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
      const read = (left, top, wide, high) => {
        const part = new Uint8ClampedArray(4 * wide * high);
        for (let y = 0; y < high; y += 1) {
          const start = 4 * ((top + y) * width + left);
          part.set(bytes.subarray(start, start + 4 * wide), 4 * y * wide);
        }
        return part;
      };
      const seen = seenBy(width, height, read, wanted);
      return [Array.from(seen), Array.from(normalised(seen, wanted))];
    }"""
    page = browser.new_page()
    order = {"columns_first": columns_first()}
    chance = np.random.default_rng(0)
    shapes = ((300, 200), (97, 131), (20, 31), (64, 64), (700, 11), (9, 400), (73, 74), (90, 160))
    for number, (width, height) in enumerate(shapes):
        pixels = chance.integers(0, 256, (height, width, 4), dtype=np.uint8)
        text = base64.b64encode(pixels.tobytes()).decode()
        image = Image.fromarray(np.ascontiguousarray(pixels[:, :, :3]))
        for wanted in (
            replace(CROP, interpolation=("bilinear", "bicubic")[number % 2]),
            replace(BICUBIC, interpolation=("bicubic", "bilinear")[number % 2]),
            replace(CROP, size=33, crop_share=0.95),
        )[number % 2 : number % 2 + 2]:
            seen, inputs = page.evaluate(
                run.replace("%s", code), [text, width, height, wanted.to_json() | order]
            )
            expected = wanted.pixels(image)
            assert np.array_equal(np.reshape(seen, expected.shape), expected), (width, height)
            x = torch.from_numpy(expected.copy()).permute(2, 0, 1) / 255
            mean, std = (torch.tensor(v).view(3, 1, 1) for v in (wanted.mean, wanted.std))
            np.testing.assert_allclose(inputs, ((x - mean) / std).flatten(), atol=1e-6)
    page.close()


def test_the_answers_are_those_of_pytorch_and_nothing_is_asked_for(
    context: Any,
    runtime: Runtime,
    saved: Path,
    entry: DemoModel,
    pictures: list[Path],
    tmp_path: Path,
):
    out = tmp_path / "demo.html"
    other = replace(
        entry, title="<After>", preprocessing=BICUBIC.to_json(), temperature=1.0, threshold=None
    )
    write_demo([entry, other], out, runtime)
    page, complaints = open_page(context, out.as_uri())
    loaded = load_saved(saved)
    spec = replace(loaded.spec, preprocessing=BICUBIC, extra={})
    plain = classifier_of(replace(loaded, spec=spec), saved)
    expected = plain.probabilities([BICUBIC.pixels(decode(path)) for path in pictures])
    rows = predict_saved(saved, pictures)["predictions"]
    largest = 0.0
    for path, row, wanted, (first, second) in zip(
        pictures, rows, expected, answers_of(page, pictures), strict=True
    ):
        for said in row["answers"]:
            got = first["probabilities"][CLASSES.index(said["label"])]
            assert got == pytest.approx(said["probability"], abs=1e-3), path.name
            largest = max(largest, abs(got - said["probability"]))
        assert first["label"] == row["answers"][0]["label"]
        assert first["unsure"] == row["unsure"], path.name
        np.testing.assert_allclose(second["probabilities"], wanted, atol=1e-3, err_msg=path.name)
        assert second["unsure"] is False
    assert largest > 0  # another runtime, another order of sums
    assert {row["unsure"] for row in rows} == {True, False}
    shown = page.text_content("#cards")
    assert "Don’t know" in shown and "is below 70.0%" in shown
    assert f"{len(pictures)} images; the models agree on" in page.text_content("#summary")
    headings = page.eval_on_selector_all(".which", "all => all.map(one => one.textContent)")
    assert set(headings) == {"Before", "<After>"}

    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    (tmp_path / "empty.jpg").touch()
    assert answers_of(page, [broken, tmp_path / "empty.jpg"], 2) == [None, None]
    failures = page.eval_on_selector_all(".failed", "all => all.map(one => one.textContent)")
    assert failures == [
        "Cannot be used: the file is empty",
        "Cannot be used: not an image that this browser reads",
    ]
    for width, scheme in ((1280, "dark"), (390, "light")):
        page.set_viewport_size({"width": width, "height": 800})
        page.emulate_media(color_scheme=scheme)
        assert violations(page) == []
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")

    page.emulate_media(media="print", color_scheme="dark")
    assert page.is_hidden("#controls") and page.is_visible("#results")
    body = "(name) => getComputedStyle(document.body)[name]"
    assert page.evaluate(body, "backgroundColor") == "rgb(255, 255, 255)"
    assert page.evaluate(body, "color") == "rgb(31, 38, 45)"
    page.emulate_media(media="screen")

    page.click("#clear")
    assert page.is_hidden("#results")
    for times, kind in ((3, "drop"), (4, "paste")):
        page.evaluate(PUT, [base64.b64encode(pictures[0].read_bytes()).decode(), kind])
        page.wait_for_selector(f"html[data-added='{times}']")
        card = json.loads(page.get_attribute("#cards .card", "data-answers"))
        assert card[0]["label"] == rows[0]["answers"][0]["label"]
    assert len(page.query_selector_all("#cards .card")) == 2
    page.click("#camera")  # this Chromium has none
    page.wait_for_selector("#problem:not([hidden])")
    assert "No camera (" in page.text_content("#problem")
    assert server_line(out)[0] in page.text_content("#problem")
    assert complaints == [f"asked for {out.as_uri()}"]


def test_a_folder_works_from_a_server_and_says_so_from_a_file(
    browser: Any,
    runtime: Runtime,
    saved: Path,
    entry: DemoModel,
    pictures: list[Path],
    tmp_path: Path,
):
    out = tmp_path / "demo"
    write_demo([entry], out, runtime)

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(Quiet, directory=str(out))
    )
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    address = f"http://127.0.0.1:{server.server_port}/"
    context = browser.new_context(viewport={"width": 390, "height": 800})
    try:
        page, complaints = open_page(context, address)
        [[answer]] = answers_of(page, pictures[:1])
        [row] = predict_saved(saved, pictures[:1])["predictions"]
        assert answer["label"] == row["answers"][0]["label"]
        asked = [text for text in complaints if text.startswith("asked for")]
        assert complaints == asked
        assert all(text.startswith(f"asked for {address}") for text in asked) and len(asked) == 3
        page, _ = open_page(context, (out / "index.html").as_uri(), fails=True)
        assert server_line(out)[0] in page.text_content("#problem")
    finally:
        context.close()
        server.shutdown()
        server.server_close()
        thread.join()
