"""Arrays of .npz files, and one kind of error for whatever is wrong with them."""

import os

import numpy as np


def read(path: str | os.PathLike[str], *names: str) -> tuple[np.ndarray, ...]:
    """Read arrays of an .npz file.

    Args:
        path: the file.
        names: of the arrays.

    Returns:
        The arrays, in the order of their names.

    Raises:
        ValueError: the file cannot be read, is damaged, or an array is missing.

    Example:
        >>> import tempfile
        >>> path = tempfile.mkdtemp() + "/two.npz"
        >>> np.savez(path, a=np.arange(2), b=np.arange(3))
        >>> read(path, "b", "a")
        (array([0, 1, 2]), array([0, 1]))
    """
    try:
        # NumPy leaves a file open that it opened itself and cannot read.
        with open(path, "rb") as file, np.load(file) as arrays:
            return tuple(arrays[name] for name in names)
    # A damaged file makes zipfile, zlib and NumPy raise about anything.
    except Exception as error:
        reason = str(error) or type(error).__name__
        raise ValueError(
            f"npz: {path} must be an .npz file with the arrays {', '.join(names)}, got: {reason}. Get it again."
        ) from error
