"""Images on disk: where they are, lists of them, and the cache of decoded pixels. Tasks of real data build on it."""

from .cache import Decoded, decoded
from .lists import (
    LIST_BYTES,
    ImageList,
    check_disjoint,
    check_inside,
    check_text,
    class_number,
    image_list,
    numbered_lines,
    read_list,
    shown,
)
from .location import cache_folder, data_root, dataset_folder
from .preprocessing import Preprocessing
from .task import ImageTask, Lists, check_classes

__all__ = [
    "LIST_BYTES",
    "Decoded",
    "ImageList",
    "ImageTask",
    "Lists",
    "Preprocessing",
    "cache_folder",
    "check_classes",
    "check_disjoint",
    "check_inside",
    "check_text",
    "class_number",
    "data_root",
    "dataset_folder",
    "decoded",
    "image_list",
    "numbered_lines",
    "read_list",
    "shown",
]
