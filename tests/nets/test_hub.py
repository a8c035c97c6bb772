"""timm's weights: from the Hub's cache on this machine, from the Hub, from PyTorch's cache."""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Generator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from secateurs.errors import InputError
from secateurs.nets.backbones import build
from secateurs.nets.candidates import candidates
from secateurs.nets.download import find_weights, weights_at_hand
from secateurs.nets.weights import load_pretrained

pytest.importorskip("timm")

NAME = "mobilenetv3_small_050"
REPOSITORY = "timm/mobilenetv3_small_050.lamb_in1k"


@pytest.fixture(autouse=True)
def empty_caches(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hf"))
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)


@pytest.fixture(scope="module")
def published() -> dict[str, Tensor]:
    torch.manual_seed(1)
    return dict(build(NAME, 1000).state_dict())


@pytest.fixture
def content(published: dict[str, Tensor], tmp_path: Path) -> bytes:
    save_file(published, tmp_path / "published")
    return (tmp_path / "published").read_bytes()


def into_cache(cache: Path, content: bytes) -> Path:
    """A file in the layout of huggingface_hub's cache."""
    folder = cache / f"models--{REPOSITORY.replace('/', '--')}"
    blob = folder / "blobs" / hashlib.sha256(content).hexdigest()
    snapshot = folder / "snapshots" / "0123abcd" / "model.safetensors"
    for path in (blob, snapshot, folder / "refs" / "main"):
        path.parent.mkdir(parents=True, exist_ok=True)
    blob.write_bytes(content)
    (folder / "refs" / "main").write_text("0123abcd")
    snapshot.symlink_to(blob)
    return snapshot


def check_loaded(model: nn.Module, published: dict[str, Tensor]) -> None:
    for key, value in model.state_dict().items():
        if not key.startswith("classifier."):
            assert torch.equal(value, published[key]), key


def test_the_hub_s_cache_is_used_without_the_network(
    content: bytes, published: dict[str, Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = into_cache(tmp_path / "hf", content)
    # huggingface_hub itself finds it there.
    huggingface_hub = pytest.importorskip("huggingface_hub")
    found = huggingface_hub.try_to_load_from_cache(
        REPOSITORY, "model.safetensors", cache_dir=tmp_path / "hf"
    )
    assert Path(found) == path
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    model = build(NAME, 3)
    report = load_pretrained(model, NAME, "auto", cache=tmp_path / "cache")
    assert report.source == "timm" and report.detail == REPOSITORY
    assert report.sha256 == hashlib.sha256(content).hexdigest()
    assert report.sentence == "53 of 54 layers pretrained (classifier is the new head)"
    check_loaded(model, published)
    path.resolve().write_bytes(content[:-1] + b"?")
    assert weights_at_hand(NAME, cache=tmp_path / "cache") is None
    with pytest.raises(InputError, match=r"tried timm's file \(HF_HUB_OFFLINE is set\); give"):
        find_weights(NAME, "auto", cache=tmp_path / "cache")


def test_pytorch_s_cache_has_what_timm_fetched_before(
    published: dict[str, Tensor], tmp_path: Path
) -> None:
    name = "timm:resnet18.tv_in1k"  # torchvision's own file, which is named for its hash
    path = tmp_path / "hub" / "checkpoints" / "resnet18-f37072fd.pth"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"another file")
    assert weights_at_hand(name, cache=tmp_path / "cache") is None


def original_name(key: str) -> str:
    """A tensor of timm's ConvNeXt under the name that it has in Facebook's own files."""
    changes = (
        (r"^stem\.(\d)", r"downsample_layers.0.\1"),
        (r"^stages\.(\d)\.downsample", r"downsample_layers.\1"),
        (r"^(stages\.\d)\.blocks", r"\1"),
        *((r"conv_dw", "dwconv"), (r"mlp\.fc(\d)", r"pwconv\1")),
        *((r"^head\.norm", "norm"), (r"^head\.fc", "head")),
    )
    for pattern, replacement in changes:
        key = re.sub(pattern, replacement, key)
    return key


def test_a_file_in_the_names_of_its_authors_is_read_as_timm_reads_it(tmp_path: Path) -> None:
    torch.manual_seed(0)
    published = build("convnext_atto", 1000).state_dict()
    original = {original_name(key): value for key, value in published.items()}
    assert "stages.0.0.dwconv.weight" in original
    torch.save({"model": original}, tmp_path / "convnext.pth")
    model = build("convnext_atto", 3)
    report = load_pretrained(model, "convnext_atto", tmp_path / "convnext.pth", cache=tmp_path)
    assert report.sentence == "40 of 41 layers pretrained (head.fc is the new head)"
    for key, value in model.state_dict().items():
        assert key.startswith("head.fc.") or torch.equal(value, published[key]), key


def test_a_distilled_network_gets_two_new_heads(tmp_path: Path) -> None:
    name = "deit_tiny_distilled_patch16_224"
    published = build(name, 1000).state_dict()
    save_file(published, tmp_path / "deit.safetensors")
    report = load_pretrained(build(name, 3), name, tmp_path / "deit.safetensors", cache=tmp_path)
    assert report.sentence == "49 of 51 layers pretrained (head and head_dist are the new head)"


class Hub(BaseHTTPRequestHandler):
    content = b""
    digest = ""
    asked: list[str] = []  # noqa: RUF012

    def do_HEAD(self) -> None:
        Hub.asked.append(f"HEAD {self.path}")
        self.send_response(302 if REPOSITORY in self.path else 404)
        self.send_header("Location", "/blob")
        self.send_header("X-Linked-Etag", f'"{Hub.digest}"')
        self.end_headers()

    def do_GET(self) -> None:
        Hub.asked.append(f"GET {self.path}")
        if self.path != "/blob":
            self.send_response(302)
            self.send_header("Location", "/blob")
            self.end_headers()
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(Hub.content)))
        self.end_headers()
        self.wfile.write(Hub.content)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server(content: bytes, monkeypatch: pytest.MonkeyPatch) -> Generator[HTTPServer]:
    Hub.content, Hub.digest, Hub.asked = content, hashlib.sha256(content).hexdigest(), []
    server = HTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("no_proxy", "*")
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_the_hub_is_asked_once_and_its_digest_checked(
    server: HTTPServer, content: bytes, published: dict[str, Tensor], tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    found = find_weights(NAME, "auto", cache=cache)
    assert found.source == "timm" and found.path is not None
    assert found.path.read_bytes() == content
    assert Hub.asked == [
        f"HEAD /{REPOSITORY}/resolve/main/model.safetensors",
        f"GET /{REPOSITORY}/resolve/main/model.safetensors",
        "GET /blob",
    ]
    model = build(NAME, 3)
    load_pretrained(model, NAME, found, cache=cache)
    check_loaded(model, published)
    assert find_weights(NAME, "auto", cache=cache) == found and len(Hub.asked) == 3
    found.path.write_bytes(content[:5000])  # damaged, and fetched again
    assert find_weights(NAME, "auto", cache=cache).path == found.path
    assert found.path.read_bytes() == content
    found.path.unlink()
    Hub.digest = "0" * 64
    with pytest.raises(InputError, match=r"SHA-256 is .*, expected 00000000.*; not kept"):
        find_weights(NAME, "auto", cache=cache)
    assert list((cache / "weights").iterdir()) == []


def test_a_site_that_does_not_answer_is_asked_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # nothing listens there
    monkeypatch.setenv("no_proxy", "*")
    names = [NAME, "mobilenetv3_small_075"]
    found, skipped = candidates(names, cache=tmp_path)
    assert found == () and [one.name for one in skipped] == names
    assert "Connection refused" in skipped[0].reason
    assert "127.0.0.1:9 does not answer" in skipped[1].reason
