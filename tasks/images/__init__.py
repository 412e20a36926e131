"""Images on disk: where they are, lists of them, and the cache of decoded pixels. Tasks of real data build on it."""

from .cache import Decoded, Progress, decoded
from .lists import ImageList, check_inside, image_list, numbered_lines
from .location import cache_folder, data_root, dataset_folder
from .preprocessing import Preprocessing

__all__ = [
    "Decoded",
    "ImageList",
    "Preprocessing",
    "Progress",
    "cache_folder",
    "check_inside",
    "data_root",
    "dataset_folder",
    "decoded",
    "image_list",
    "numbered_lines",
]
