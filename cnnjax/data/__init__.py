"""Named data sets as NumPy arrays, batches as a function of the step, augmentation, pictures of digits.

Nothing here knows models or training, and importing it loads neither TensorFlow nor tensorflow-datasets.

- `load`: from the name of a data set to a `Dataset`; `NAMES` are the names that it knows.
- `Dataset`, `Examples`, `check`: the form that every source delivers.
- `Batches`: training batches as a pure function of (seed, step). `padded`: evaluation, every example once.
- `translate`, `affine`: augmentation of one image, for `jax.vmap`.
- `read_digit`: a PNG or JPEG as an MNIST digit.
"""

from cnnjax.data.augment import affine, translate
from cnnjax.data.batches import Batches, padded
from cnnjax.data.dataset import Dataset, Examples, check
from cnnjax.data.images import read_digit
from cnnjax.data.load import NAMES, load
from cnnjax.data.tfds import Unavailable

__all__ = [
    "NAMES",
    "load",
    "Unavailable",
    "Dataset",
    "Examples",
    "check",
    "Batches",
    "padded",
    "translate",
    "affine",
    "read_digit",
]
