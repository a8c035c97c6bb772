"""The runtime of the page: from npm once, checked, or from a path; anything else is refused."""

from __future__ import annotations

import hashlib
import io
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest

from secateurs.demo import runtime as module
from secateurs.demo.runtime import SCRIPT, WASM, as_global, find_runtime, npm_pack
from secateurs.errors import InputError

FILES = {
    SCRIPT: b"const a=1;export{a as b,a as default};\n//# sourceMappingURL=x.map",
    WASM: b"\0asm1",
}


def archive(path: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(f"package/dist/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An archive of two small files, whose hashes are the ones expected."""
    path = archive(tmp_path / "small.tgz", FILES)
    digest = hashlib.sha512(path.read_bytes()).hexdigest()
    monkeypatch.setattr(module, "ARCHIVE_SHA512", digest)
    known = {name: hashlib.sha256(content).hexdigest() for name, content in FILES.items()}
    monkeypatch.setattr(module, "SHA256", known)
    return path


def test_it_is_fetched_once_and_again_when_damaged(small: Path, tmp_path: Path):
    asked: list[Path] = []

    def fetch(folder: Path) -> Path:
        asked.append(folder)
        return small

    cache = tmp_path / "cache"
    for _ in range(2):
        found = find_runtime(None, cache=cache, fetch=fetch)
        assert found.script == "const a=1;globalThis.ort={b:a,default:a};"
        assert found.wasm == b"\0asm1"
    assert len(asked) == 1
    [kept] = cache.rglob(WASM)
    kept.write_bytes(b"\0asm2")
    assert find_runtime(None, cache=cache, fetch=fetch).wasm == b"\0asm1"
    assert len(asked) == 2


def test_an_archive_with_another_hash_is_not_kept(small: Path, tmp_path: Path, monkeypatch):
    other = archive(tmp_path / "other.tgz", FILES | {WASM: b"\0asm3"})
    with pytest.raises(InputError, match="its SHA-512 is not the one expected"):
        find_runtime(None, cache=tmp_path / "cache", fetch=lambda folder: other)
    assert not (tmp_path / "cache").exists()


def test_a_path_given_is_an_archive_or_a_folder(tmp_path: Path):
    def found(path: Path) -> bytes:
        return find_runtime(path, cache=tmp_path / "unused").wasm

    assert found(archive(tmp_path / "a.tgz", FILES)) == b"\0asm1"
    for folder in (tmp_path / "flat", tmp_path / "package" / "dist"):
        folder.mkdir(parents=True)
        for name, content in FILES.items():
            (folder / name).write_bytes(content)
    assert found(tmp_path / "flat") == found(tmp_path / "package") == b"\0asm1"
    for path, words in (
        (archive(tmp_path / "b.tgz", {SCRIPT: b""}), f"no {WASM} in it"),
        (archive(tmp_path / "c.tgz", FILES | {WASM: b"MZ"}), "not a WebAssembly program"),
        (archive(tmp_path / "d.tgz", FILES | {SCRIPT: b"x=1"}), "does not end with its exports"),
        (tmp_path, f"no {SCRIPT} in it"),
    ):
        with pytest.raises(InputError, match=words):
            found(path)
    (tmp_path / "e.tgz").write_bytes(b"not an archive")
    with pytest.raises(InputError, match="not readable as an npm archive"):
        found(tmp_path / "e.tgz")
    (tmp_path / "flat" / WASM).unlink()
    with pytest.raises(InputError, match="No such file"):
        found(tmp_path / "flat")


def test_a_script_that_would_end_its_element_is_refused():
    with pytest.raises(ValueError, match="would end the page's script"):
        as_global('const a="</SCRIPT>";export{a as b};')
    with pytest.raises(ValueError, match="does not end with its exports"):
        as_global("export{};")


def test_what_npm_says_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(InputError, match=r"npm is not installed.*--runtime"):
        npm_pack(tmp_path)
    monkeypatch.setattr("shutil.which", lambda name: "/bin/npm")

    def failed(*words: Any, **options: Any) -> Any:
        assert words[0][1:3] == ["pack", f"{module.PACKAGE}@{module.VERSION}"]
        return subprocess.CompletedProcess([], 1, "", "\nnpm error code ENOTFOUND\nmore")

    monkeypatch.setattr("subprocess.run", failed)
    with pytest.raises(InputError, match=r"could not fetch .* \(npm error code ENOTFOUND\); give"):
        npm_pack(tmp_path)

    def slow(*words: Any, **options: Any) -> Any:
        raise subprocess.TimeoutExpired("npm", 1)

    monkeypatch.setattr("subprocess.run", slow)
    with pytest.raises(InputError, match="npm did not finish within"):
        npm_pack(tmp_path)


def test_npm_gets_a_largest_time_between_tries_above_its_smallest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    npm = tmp_path / "npm"
    npm.write_text('#!/bin/sh\necho "npm error given: $*" >&2\nexit 1\n')
    npm.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    with pytest.raises(InputError) as refused:
        npm_pack(tmp_path)
    words = str(refused.value).split()
    times = [float(words[words.index(f"--fetch-retry-{n}timeout") + 1]) for n in ("min", "max")]
    assert times[0] < times[1]
