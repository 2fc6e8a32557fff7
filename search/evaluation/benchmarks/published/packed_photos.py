"""Photos that are published in tars, which are read without unpacking."""

from collections.abc import Callable, Collection, Iterable, Iterator
from itertools import chain
from pathlib import Path, PurePosixPath

from features.errors import WaldoError
from features.photo import is_picture
from indexer.tar_photos import files_in_tar
from search.evaluation.benchmarks.published.photo_files import PhotoFiles

# Called with what is being done, how much of it is done, and how much there is.
OnListing = Callable[[str, int, int], None]

_COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")


def photo_id(name: str) -> str:
    """The id of a photo: its file's name up to the first dot, without folders."""
    return PurePosixPath(name).name.split(".")[0]


def photos_of(
    files: Iterable[Path],
    chosen: Collection[str] | None = None,
    on_listing: OnListing | None = None,
) -> PhotoFiles:
    """The photos among files, and behind them those in the tars among these, tar by tar.

    chosen: the ids (`photo_id`) of those that are wanted; None for all. Raises WaldoError for a tar
    that is broken, compressed or cannot be read.
    """
    tars: list[Path] = []

    def loose() -> Iterator[Path]:
        for file in files:
            if file.name.lower().endswith(_COMPRESSED):
                raise WaldoError(
                    f"{file}: is a compressed tar, in which no single photo can be read; unpack "
                    "it, or make a plain tar of it"
                )
            if file.suffix == ".tar":
                tars.append(file)
            else:
                yield file

    def packed() -> Iterator[Path]:  # is begun when all files have been looked at
        for done, tar in enumerate(tars):
            if on_listing is not None:
                on_listing(f"listing {tar.name}", done, len(tars))
            yield from files_in_tar(tar)

    return PhotoFiles(file for file in chain(loose(), packed()) if _is_wanted(file, chosen))


def _is_wanted(file: Path, chosen: Collection[str] | None) -> bool:
    """Whether a file was chosen and is a photo: tars may hold labels too."""
    return (chosen is None or photo_id(file.name) in chosen) and is_picture(file)
