"""Read the properties beside a map, ``.pkl`` or ``.json``, without running what a pickle asks to run."""

from __future__ import annotations

import pickle
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monai_calib.files import FileError, read_json

__all__ = ["read_properties", "unpickle"]

MOST_BYTES = 1 << 28
_ADVICE = "Properties are optional: leave the file out, or save them as JSON."


def read_properties(path: Path) -> Mapping[str, Any]:
    """Read the properties ``<case>.pkl`` or ``<case>.json`` of a map; ``path`` is the map's, without a suffix.

    Returns: the mapping of the first of the two that is there; an empty one if neither is.

    Raises: :class:`~monai_calib.files.FileError` naming the file: damaged, no mapping, or a pickle that holds more than
        plain values.
    """
    pickled, plain = path.with_name(f"{path.name}.pkl"), path.with_name(f"{path.name}.json")
    if pickled.is_file():
        found, file = unpickle(pickled), pickled
    elif plain.is_file():
        found, file = read_json(plain, advice=_ADVICE), plain
    else:
        return {}
    if not isinstance(found, Mapping):
        raise FileError(f"{file}: expected a mapping of properties, got {type(found).__name__}. {_ADVICE}")
    return found


def unpickle(path: Path) -> Any:
    """Load a pickle of containers, numbers, texts and NumPy arrays; whatever else it names is neither imported nor run.

    Raises: :class:`~monai_calib.files.FileError` naming the file, and what it asked for.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "a.pkl")
        ...     _ = path.write_bytes(pickle.dumps({"spacing": np.array([3.0, 1.0, 1.0])}))
        ...     unpickle(path)
        {'spacing': array([3., 1., 1.])}
    """
    try:
        if path.stat().st_size > MOST_BYTES:
            raise FileError(f"{path}: expected properties of at most {MOST_BYTES} bytes. {_ADVICE}")
        with path.open("rb") as file:
            return _Plain(file).load()
    except FileError:
        raise
    except _RefusedError as error:
        raise FileError(
            f"{path}: expected containers, numbers and NumPy arrays, got a pickle that calls {error}; nothing of it "
            f"was run. {_ADVICE}"
        ) from None
    except Exception as error:  # a damaged pickle raises many kinds
        raise FileError(f"{path}: cannot be read as a pickle ({type(error).__name__}: {error}). {_ADVICE}") from error


class _RefusedError(Exception):
    """A name that is not among the plain ones."""


class _Plain(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        # NumPy 2 renamed numpy.core; files of either are read.
        known = _KNOWN.get((module.replace("numpy._core", "numpy.core"), name))
        if known is None:
            raise _RefusedError(f"{module}.{name}")
        return known

    def persistent_load(self, pid: Any) -> Any:
        raise _RefusedError("an object outside the file")


def _empty_array(kind: Any, shape: Any, dtype: Any) -> NDArray[Any]:
    """The empty array that a pickled one begins as; NumPy's own function would allocate any size."""
    if kind is not np.ndarray or shape != (0,):
        raise _RefusedError("numpy.core.multiarray._reconstruct with a size")
    return np.empty(0, np.uint8)


def _of_buffer(buffer: Any, dtype: Any, shape: Any, order: Any, *more: Any) -> NDArray[Any]:
    return np.frombuffer(buffer, dtype).reshape(shape, order=order)


def _scalar(dtype: Any, data: Any = b"") -> Any:
    if not isinstance(dtype, np.dtype) or dtype.hasobject or not isinstance(data, bytes):
        raise _RefusedError("numpy.core.multiarray.scalar of an object")
    return np.frombuffer(data, dtype)[0]


def _latin(text: Any, encoding: Any = "latin1") -> bytes:
    if not isinstance(text, str) or encoding != "latin1":
        raise _RefusedError("_codecs.encode")
    return text.encode("latin1")


def _no_bytes() -> bytes:
    """Empty bytes, as a protocol below 3 writes them."""
    return b""


_KNOWN: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("numpy", "dtype"): np.dtype,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy.core.multiarray", "_reconstruct"): _empty_array,
    ("numpy.core.multiarray", "scalar"): _scalar,
    ("numpy.core.numeric", "_frombuffer"): _of_buffer,
    ("__builtin__", "bytes"): _no_bytes,
    ("_codecs", "encode"): _latin,  # bytes of a protocol below 3
    **{
        (module, kind.__name__): kind
        for module in ("builtins", "__builtin__")
        for kind in (set, frozenset, complex, slice)
    },
}
