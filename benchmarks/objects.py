"""What it costs to find recurring objects (`waldo objects`), on photos that show nothing twice.

    python benchmarks/objects.py --photos 500 --photos 2000

How well they are found, `waldo evaluate objects-folders` and `objects-scenes` tell.
"""

import tempfile
from pathlib import Path

from harness import make_parser, peak_memory, seconds_of
from synthetic import PixelMaps, make_photos

from indexer.ingest.build import index_photos
from indexer.reader import IndexReader
from search.recurring.linking import link_photos
from search.recurring.recurrence import recurring_objects


def cost(count: int) -> None:
    """Print the seconds and the memory that some synthetic photos take."""
    with tempfile.TemporaryDirectory() as folder:
        index = Path(folder) / "index"
        photos = make_photos(Path(folder) / "photos", count)
        index_photos(photos, index, PixelMaps())
        seconds = seconds_of(link_photos, index)
        again = seconds_of(link_photos, index)
        with IndexReader.open(index) as reader:
            listing = seconds_of(recurring_objects, reader)
            links = reader.manifest.links
        assert links is not None
        print(
            f"{count} photos: compared in {seconds:.0f} s, again in {again:.2f} s, listed in "
            f"{listing:.2f} s; {links.bytes / count:.0f} bytes per photo, {peak_memory():.0f} MiB"
        )


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--photos", type=int, action="append", default=[], metavar="N")
    for count in parser.parse_args().photos or [500, 2000]:
        cost(count)


if __name__ == "__main__":
    main()
