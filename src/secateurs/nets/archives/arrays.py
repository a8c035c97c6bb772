"""Arrays out of pickles that may hold nothing else, and a digest of them."""

from __future__ import annotations

import hashlib
import io
import pickle
from typing import Any

import numpy as np
from numpy.typing import NDArray

from secateurs.errors import InputError

Arrays = dict[str, NDArray[Any]]


def tensors_digest(arrays: Arrays) -> str:
    """SHA-256 over names, shapes and values as float32, whatever the file they were kept in.

    >>> tensors_digest({"a": np.zeros(2, np.float32)})[:8]
    'a47fe240'
    """
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name], dtype="<f4").reshape(np.shape(arrays[name]))
        digest.update(f"{name}:{array.shape};".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


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
    """Unpickle nested dicts and lists of NumPy arrays; raises InputError on anything else.

    >>> read_arrays(pickle.dumps({"bias": np.zeros(1)}))
    {'bias': array([0.])}
    """
    try:
        return _ArrayUnpickler(io.BytesIO(content)).load()
    except Exception as error:  # a broken pickle can raise nearly anything
        raise InputError(f"not a pickle of NumPy arrays alone: {error}") from None
