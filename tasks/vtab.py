"""VTAB-1k: nineteen data sets with 1,000 training images each (Zhai et al. 2019, arXiv:1910.04867).

They are read as nearly everybody has them (the archive of NOAH, or what its script writes from TensorFlow Datasets):
``$PEFTMARK_DATA/vtab-1k/<folder>/`` with ``train800.txt``, ``val200.txt`` and ``test.txt``, a line
``images/train800/000000.jpg 307`` for each image. ``train800val200.txt`` is held against the first two if it is there;
its images are copies of theirs, and training on all 1,000 takes the originals.
"""

from __future__ import annotations

from collections import Counter
from typing import ClassVar

from ..errors import PeftmarkError
from ..registry import TASKS
from .images import ImageList, ImageTask, Lists, check_classes, dataset_folder, read_list
from .images.lists import sizes_and_times

BOTH = "train800val200.txt"


class Vtab(ImageTask):
    """One of VTAB-1k's data sets.

    Class attributes:
        num_classes: of the data set; the lists must have an image of each.
        test_size: images of the test split in the paper; another number is a warning.
        sizes: of ``train800.txt`` and ``val200.txt``; another number is refused.
    """

    num_classes: ClassVar[int]
    test_size: ClassVar[int]
    sizes: ClassVar[tuple[int, int]] = (800, 200)

    def lists(self) -> Lists:
        root = dataset_folder(f"vtab-1k/{self.folder}")
        names = tuple(str(label) for label in range(self.num_classes))
        train, validation, test = (
            read_list(self.name, root, file, names) for file in ("train800.txt", "val200.txt", "test.txt")
        )
        for images, size in zip((train, validation), self.sizes, strict=True):
            if len(images) != size:
                raise PeftmarkError(f"{root / images.name} has {len(images)} images; VTAB-1k has {size} there")
        if (root / BOTH).exists():
            _check_union(read_list(self.name, root, BOTH, names), train, validation)
        odd = f"test.txt has {len(test)} images; VTAB-1k has {self.test_size} there"
        lists = Lists(train, validation, {"test": test}, (odd,) if len(test) != self.test_size else ())
        check_classes(lists, self.num_classes, self.name)
        return lists

    def expected_sizes(self) -> tuple[int, int, int]:
        return (*self.sizes, self.test_size)

    @property
    def folder(self) -> str:
        """Below ``vtab-1k``."""
        return str(TASKS.canonical(self.name).partition("/")[2])


def _check_union(both: ImageList, train: ImageList, validation: ImageList) -> None:
    """The images of the third list are copies of the others', under other names; their order may be another.

    Raises:
        PeftmarkError: where their labels or sizes in bytes are not the same.
    """
    apart = {*train.content(), *validation.content()}
    if set(both.content()) == apart:
        return

    def kinds(images: ImageList) -> Counter[tuple[int, int]]:
        return Counter((label, size) for label, (size, _) in zip(images.labels, sizes_and_times(images), strict=True))

    odd = (kinds(both) - (kinds(train) + kinds(validation))).total() + abs(len(both) - len(apart))
    if odd:
        raise PeftmarkError(
            f"{both.root / both.name} has {odd} images that train800.txt and val200.txt have not: the three lists "
            f"are of different draws; unpack the data set again"
        )


@TASKS.register("vtab/cifar", track="image", group="natural", aliases=("vtab/cifar100",))
class Cifar(Vtab):
    """CIFAR-100: photographs of 32 x 32 pixels (Krizhevsky 2009)."""

    num_classes = 100
    test_size = 10_000
    lossless = True


@TASKS.register("vtab/caltech101", track="image", group="natural")
class Caltech101(Vtab):
    """Caltech-101 and its background class: objects (Fei-Fei et al. 2004)."""

    num_classes = 102
    test_size = 6_084


@TASKS.register("vtab/dtd", track="image", group="natural")
class Dtd(Vtab):
    """Describable Textures (Cimpoi et al. 2014)."""

    num_classes = 47
    test_size = 1_880


@TASKS.register("vtab/oxford_flowers102", track="image", group="natural")
class OxfordFlowers102(Vtab):
    """Oxford Flowers (Nilsback and Zisserman 2008)."""

    num_classes = 102
    test_size = 6_149


@TASKS.register("vtab/oxford_iiit_pet", track="image", group="natural", aliases=("vtab/oxford_pet",))
class OxfordIiitPet(Vtab):
    """Oxford-IIIT Pets: breeds of cats and dogs (Parkhi et al. 2012)."""

    num_classes = 37
    test_size = 3_669


@TASKS.register("vtab/svhn", track="image", group="natural")
class Svhn(Vtab):
    """Street View House Numbers, cropped to a digit (Netzer et al. 2011)."""

    num_classes = 10
    test_size = 26_032
    lossless = True


@TASKS.register("vtab/sun397", track="image", group="natural")
class Sun397(Vtab):
    """SUN397: scenes (Xiao et al. 2010)."""

    num_classes = 397
    test_size = 21_750


@TASKS.register("vtab/patch_camelyon", track="image", group="specialized")
class PatchCamelyon(Vtab):
    """Patch Camelyon: metastases in patches of lymph nodes (Veeling et al. 2018)."""

    num_classes = 2
    test_size = 32_768
    lossless = True


@TASKS.register("vtab/eurosat", track="image", group="specialized")
class Eurosat(Vtab):
    """EuroSAT: land use from Sentinel-2, RGB (Helber et al. 2019)."""

    num_classes = 10
    test_size = 5_400


@TASKS.register("vtab/resisc45", track="image", group="specialized")
class Resisc45(Vtab):
    """RESISC45: scenes from the air (Cheng et al. 2017)."""

    num_classes = 45
    test_size = 6_300


@TASKS.register("vtab/diabetic_retinopathy", track="image", group="specialized")
class DiabeticRetinopathy(Vtab):
    """Diabetic Retinopathy: five grades, from photographs of the retina (Kaggle 2015)."""

    num_classes = 5
    test_size = 42_670


@TASKS.register("vtab/clevr_count", track="image", group="structured")
class ClevrCount(Vtab):
    """CLEVR: how many objects, three to ten (Johnson et al. 2017)."""

    num_classes = 8
    test_size = 15_000
    lossless = True


@TASKS.register("vtab/clevr_dist", track="image", group="structured")
class ClevrDist(Vtab):
    """CLEVR: how far the nearest object is, six ranges (Johnson et al. 2017)."""

    num_classes = 6
    test_size = 15_000
    lossless = True


@TASKS.register("vtab/dmlab", track="image", group="structured")
class Dmlab(Vtab):
    """DMLab: how far the target is and what kind, seen in a maze (Beattie et al. 2016)."""

    num_classes = 6
    test_size = 22_735


@TASKS.register("vtab/kitti", track="image", group="structured")
class Kitti(Vtab):
    """KITTI: how far the nearest vehicle is, four ranges (Geiger et al. 2013)."""

    num_classes = 4
    test_size = 711  # in VPT's table; google-research/task_adaptation tests an older split, of 634
    lossless = True


@TASKS.register("vtab/dsprites_loc", track="image", group="structured")
class DspritesLoc(Vtab):
    """dSprites: the shape's horizontal position, sixteen ranges (Matthey et al. 2017)."""

    num_classes = 16
    test_size = 73_728
    lossless = True


@TASKS.register("vtab/dsprites_ori", track="image", group="structured")
class DspritesOri(Vtab):
    """dSprites: the shape's orientation, sixteen ranges (Matthey et al. 2017)."""

    num_classes = 16
    test_size = 73_728
    lossless = True


@TASKS.register("vtab/smallnorb_azi", track="image", group="structured")
class SmallnorbAzi(Vtab):
    """SmallNORB: a toy's azimuth, eighteen angles (LeCun et al. 2004)."""

    num_classes = 18
    test_size = 12_150
    lossless = True


@TASKS.register("vtab/smallnorb_ele", track="image", group="structured")
class SmallnorbEle(Vtab):
    """SmallNORB: a toy's elevation, nine angles (LeCun et al. 2004)."""

    num_classes = 9
    test_size = 12_150
    lossless = True
