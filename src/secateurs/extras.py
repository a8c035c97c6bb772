"""Optional dependencies: the packages of each extra, and the message when one is missing.

The names and packages are those of `[project.optional-dependencies]` in pyproject.toml.
"""

from __future__ import annotations

from importlib.util import find_spec

from secateurs.errors import InputError

# The modules that each extra installs and that Secateurs imports.
MODULES: dict[str, tuple[str, ...]] = {
    "onnx": ("onnx", "onnxruntime", "onnxscript"),
    "openvino": ("openvino",),
    "executorch": ("executorch",),
    "litert": ("litert_torch", "ai_edge_litert"),
    "coreml": ("coremltools",),
    "parquet": ("pyarrow",),
    "faces": ("python_avatars", "resvg_py"),
    "search": ("optuna", "sklearn"),  # Optuna's fANOVA imports scikit-learn
    "explore": ("starlette", "uvicorn"),
    "serve": ("starlette", "uvicorn", "python_multipart"),
    "tensorboard": ("tensorboard",),
    "mlflow": ("mlflow", "sqlalchemy", "alembic"),
    "graph": ("torch_pruning",),
    "gpu": ("triton",),
    "ray": ("ray",),
    "slurm": ("submitit",),
}


def missing(extra: str) -> tuple[str, ...]:
    """The modules of an extra that are not installed; nothing is imported."""
    return tuple(name for name in MODULES[extra] if find_spec(name) is None)


def installed(extra: str) -> bool:
    """Whether all modules of an extra are installed.

    >>> installed("search") == (missing("search") == ())
    True
    """
    return not missing(extra)


def needs_words(extra: str, what: str) -> str:
    """One line that says what `what` needs and how to install it, whether it is missing or not.

    >>> print(needs_words("parquet", "the format parquet"))
    the format parquet needs pyarrow: pip install 'secateurs[parquet]'
    """
    names = ", ".join(missing(extra) or MODULES[extra])
    return f"{what} needs {names}: pip install 'secateurs[{extra}]'"


def require(extra: str, what: str) -> None:
    """Raise InputError with `needs_words` when a module of an extra is not installed."""
    if missing(extra):
        raise InputError(needs_words(extra, what))
