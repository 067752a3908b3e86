"""Named data sets as NumPy arrays, batches as a function of the step, augmentation, pictures of digits.

Nothing here knows models or training, and importing it loads neither TensorFlow nor tensorflow-datasets.

- `load`: from the name of a data set to a `Dataset`; `NAMES` are the names that it knows.
- `Dataset`, `Examples`, `check`: the form that every source delivers.
- `load_hippocampus`, `Volumes`, `Volume`: MRI volumes with a class for every voxel.
- `read_folder`, `read_picture`: pictures of your own, a sub-folder a class; `open_folder`, `PictureFiles`: unread.
- `Batches`: training batches as a pure function of (seed, step). `padded`: evaluation, every example once.
- `Stream`: the same batches from a `Source` too large for memory, read ahead.
- `Crops`: the same of boxes cut out of volumes of many sizes. `standardized`: their intensities on one scale.
- `keys`: a random key for every place in the stream of examples.
- `translate`, `flip`, `affine`, `crop`, `cutout` of one image, `mixup` of two examples and `stretch` of one series:
  augmentation, for `jax.vmap`.
- `read_digit`: a PNG or JPEG as an MNIST digit.
"""

from cnnjax.data.augment import affine, crop, cutout, flip, keys, mixup, stretch, translate
from cnnjax.data.batches import Batches, padded
from cnnjax.data.crops import Crops, standardized
from cnnjax.data.dataset import Dataset, Examples, check
from cnnjax.data.folder import PictureFiles, open_folder, read_folder, read_picture, write_digits
from cnnjax.data.hippocampus import load_hippocampus
from cnnjax.data.images import read_digit
from cnnjax.data.load import NAMES, load
from cnnjax.data.stream import Source, Stream
from cnnjax.data.tfds import Unavailable
from cnnjax.data.volume import Volume, Volumes

__all__ = [
    "NAMES",
    "load",
    "Unavailable",
    "Dataset",
    "Examples",
    "check",
    "load_hippocampus",
    "Volumes",
    "Volume",
    "read_folder",
    "read_picture",
    "write_digits",
    "open_folder",
    "PictureFiles",
    "Batches",
    "Stream",
    "Source",
    "padded",
    "Crops",
    "standardized",
    "keys",
    "translate",
    "flip",
    "affine",
    "crop",
    "cutout",
    "mixup",
    "stretch",
    "read_digit",
]
