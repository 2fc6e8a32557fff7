"""What a fleet costs beside one index of the same photos.

    python benchmarks/fleet.py                          # 4000 photos; a minute on two cores
    python benchmarks/fleet.py --photos 20000 --parts 1 4 64

Prints, for an index and for fleets: seconds to make it, seconds of a run without new photos,
milliseconds until the first answer after it is opened, milliseconds of a later query, by stage, and
bytes on disk. Features are synthetic, so no model is measured. Numbers of queries are medians.
"""

import statistics
import tempfile
from pathlib import Path

from harness import make_parser, seconds_of
from synthetic import PixelMaps, make_photos

from indexer.fleet.fleet_build import index_collection
from indexer.fleet.fleet_reader import open_collection
from indexer.upkeep.every_part import describe_collection
from search.index import Index
from search.query import Query

REPETITIONS = 9
STAGES = ("recall", "fetch", "score", "expand", "localise", "total")


def measure(photos: list[Path], folder: Path, parts: int) -> list[str]:
    """The cells of a row. parts: 1 for an ordinary index."""
    extractor, directory = PixelMaps(), folder / f"index-{parts}"
    query = Query(photos[len(photos) // 2], box=(4, 4, 20, 20))

    def index() -> None:
        asked = None if parts == 1 else parts
        index_collection([photos[0].parent], directory, extractor, parts=asked)

    def first_answer() -> None:
        with Index(open_collection(directory), extractor) as opened:
            opened.search(query)

    made, again = seconds_of(index), seconds_of(index)
    first = statistics.median(seconds_of(first_answer) for _ in range(REPETITIONS))
    with Index(open_collection(directory), extractor) as opened:
        opened.search(query)
        timings = [opened.search(query).timing for _ in range(REPETITIONS)]
    stages = [statistics.median(timing.get(stage, 0.0) for timing in timings) for stage in STAGES]
    size = describe_collection(directory)["bytes_on_disk"] / 2**20
    name = "index" if parts == 1 else f"{parts} parts"
    cells = [f"{made:.1f}", f"{again:.2f}", *(f"{1000 * each:.0f}" for each in (first, *stages))]
    return [name, *cells, f"{size:.1f}"]


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--photos", type=int, default=4000)
    parser.add_argument("--parts", type=int, nargs="+", default=[1, 4, 16])
    options = parser.parse_args()
    titles = ["", "made, s", "again, s", "first answer, ms", *(f"{s}, ms" for s in STAGES), "MiB"]
    print(" | ".join(titles))
    with tempfile.TemporaryDirectory() as folder:
        photos = make_photos(Path(folder) / "photos", options.photos)
        for parts in options.parts:
            print(" | ".join(measure(photos, Path(folder), parts)), flush=True)


if __name__ == "__main__":
    main()
