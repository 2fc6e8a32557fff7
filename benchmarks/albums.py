"""How right albums of named objects are as photos arrive, and what they cost.

    python benchmarks/albums.py --scenes data/scenes
    python benchmarks/albums.py --folders DIR
    python benchmarks/albums.py --cost data/scenes

The first two name objects by three photos each while the index has a tenth of the photos, and let
the others arrive in nine more runs. Printed are precision and recall of all albums together, the
photos that an object was named by left out, with 95 % bootstrap intervals over objects; beside them
those of a search by the name, `waldo query @NAME`, at the same probability; and whether the albums
equal those that are made afresh.

Scenes show each object in two gallery photos. So it is named by its query photo, and by two more
that are made of it: the object cut out, turned, scaled and lit anew, upon another query photo.
Folders are as for `waldo evaluate folders`. An object is named by three of its photos, by the
central box of each; the photos take turns, in three rounds.

--cost indexes 1,000 photos, made of the scenes, into an index that knows 100 names by three photos
each, and prints the time of indexing and of the albums.
"""

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from harness import add_model_options, make_parser
from labelled_scenes import read_labels
from PIL import Image, ImageEnhance

from features.extractor import FeatureExtractor
from indexer.ingest.build import index_photos
from indexer.reader import IndexReader
from indexer.store.manifest import read_manifest, write_manifest
from indexer.upkeep.naming import name_object
from search import Query, SearchOptions, open_index
from search.albums.album import SHOWN_PROBABILITY, Album, read_albums
from search.albums.filling import fill_albums
from search.evaluation.benchmarks.folders import read_folders

RUNS = 10
ROUNDS = 3


@dataclass(frozen=True)
class Subject:
    """An object to be named. views: three photos of it. photos: those of the gallery that show it,
    without its views.
    """

    name: str
    views: tuple[Query, ...]
    photos: frozenset[Path]


@dataclass(frozen=True)
class Counts:
    """Of one object: photos that were told and show it, that were told, and that show it."""

    right: int
    told: int
    all: int


def altered(photo: Path, mask: Path, backdrop: Path, out: Path, rng: np.random.Generator) -> Query:
    """A photo of an object that is cut out of another one, upon a backdrop, and its mask."""
    with Image.open(photo) as file, Image.open(mask) as cover:
        cut = file.convert("RGB")
        alpha = Image.fromarray((np.asarray(cover) > 0).astype(np.uint8) * 255)
    cut = ImageEnhance.Brightness(cut).enhance(rng.uniform(0.75, 1.25))
    cut.putalpha(alpha)
    cut = cut.crop(alpha.getbbox()).rotate(rng.uniform(-15, 15), Image.Resampling.BICUBIC, True)
    with Image.open(backdrop) as file:
        scene = file.convert("RGB")
    scale = rng.uniform(0.5, 0.8) * min(scene.width / cut.width, scene.height / cut.height)
    cut = cut.resize((round(cut.width * scale), round(cut.height * scale)))
    place = [int(rng.integers(1 + a - b)) for a, b in zip(scene.size, cut.size, strict=True)]
    scene.paste(cut, tuple(place), cut)
    shown = Image.new("L", scene.size)
    shown.paste(cut.getchannel("A").point(lambda value: 255 * (value > 127)), tuple(place))
    scene.save(out.with_suffix(".jpg"), quality=85)
    shown.save(out.with_suffix(".png"))
    return Query(out.with_suffix(".jpg"), mask=out.with_suffix(".png"))


def scene_subjects(root: Path, folder: Path, most: int) -> tuple[list[Path], list[Subject]]:
    """The gallery of the scenes, and its objects; photos that are made go into the folder."""
    rng, labels = np.random.default_rng(0), read_labels(root)
    queries, gallery = labels["queries"], labels["gallery"]
    chosen = rng.permutation(len(queries))[:most]
    subjects = []
    for number in chosen.tolist():
        query = queries[number]
        own = root / query["photo"], root / query["mask"]
        views = [Query(own[0], mask=own[1])]
        for turn in range(2):
            other = (
                root
                / queries[(number + 1 + int(rng.integers(len(queries) - 1))) % len(queries)][
                    "photo"
                ]
            )
            views.append(altered(*own, other, folder / f"view-{number}-{turn}", rng))
        photos = {
            (root / scene["photo"]).resolve()
            for scene in gallery
            if query["instance"] in [item["instance"] for item in scene["objects"]]
        }
        subjects.append(Subject(query["instance"], tuple(views), frozenset(photos)))
    return [(root / scene["photo"]).resolve() for scene in gallery], subjects


def folder_subjects(root: Path, turn: int) -> tuple[list[Path], list[Subject]]:
    """The photos of a folder per object, and these objects. turn: which photos name them."""
    benchmark = read_folders(root)
    by_folder: dict[str, list[Query]] = {}
    for asked in benchmark.queries:
        query = replace(asked.query, class_name=None)
        by_folder.setdefault(query.photo.parent.name, []).append(query)
    subjects = []
    for name, queries in by_folder.items():
        views = tuple(queries[(2 * turn + place) % len(queries)] for place in range(3))
        rest = {query.photo.resolve() for query in queries if query not in views}
        subjects.append(Subject(name, views, frozenset(rest)))
    return [photo.resolve() for photo in benchmark.gallery], subjects


def give_names(index: Path, subjects: Sequence[Subject]) -> None:
    with open_index(index, "cpu") as opened:
        for subject in subjects:
            first, *others = subject.views
            named = opened.object_named(subject.name, replace(first, also=tuple(others)))
            name_object(index, named, opened.reader.fingerprint)


def arrive(
    index: Path, gallery: Sequence[Path], subjects: Sequence[Subject], extractor: FeatureExtractor
) -> None:
    """Index photos in ten runs, name the objects after the first, and fill albums after each."""
    order = np.random.default_rng(1).permutation(len(gallery))
    arrived: list[Path] = []
    for run, some in enumerate(np.array_split(order, RUNS)):
        arrived += [gallery[number] for number in some.tolist()]
        index_photos(arrived, index, extractor, batch_size=extractor.batch_size)
        if run == 0:
            give_names(index, subjects)
        fill_albums(index)


def largest_difference(index: Path) -> tuple[int, float]:
    """How albums differ from those that are made afresh: the names whose albums show other photos,
    or other boxes, and the largest difference of a score.
    """
    with IndexReader.open(index) as reader:
        before = read_albums(reader)
    write_manifest(index, replace(read_manifest(index), albums=None))
    fill_albums(index)
    with IndexReader.open(index) as reader:
        after = read_albums(reader)

    def told(album: Album) -> list[tuple[object, ...]]:
        return [(photo.id, photo.box, photo.shown) for photo in album.photos]

    differing = [name for name in before if told(before[name]) != told(after[name])]
    gaps = [
        abs((one.score or 0.0) - (other.score or 0.0))
        for name in before
        if name not in differing
        for one, other in zip(before[name].photos, after[name].photos, strict=True)
    ]
    return len(differing), max(gaps, default=0.0)


def count(told: set[Path], subject: Subject) -> Counts:
    told = told - {view.photo.resolve() for view in subject.views}
    return Counts(len(told & subject.photos), len(told), len(subject.photos))


def by_albums(index: Path, subjects: Sequence[Subject]) -> list[Counts]:
    with IndexReader.open(index) as reader:
        albums = read_albums(reader)
        return [
            count(
                {
                    record.path
                    for record in reader.photos([one.id for one in albums[subject.name].shown])
                },
                subject,
            )
            for subject in subjects
        ]


def by_searches(index: Path, subjects: Sequence[Subject]) -> list[Counts]:
    with open_index(index, "cpu") as opened:
        found = []
        for subject in subjects:
            query = Query(Path(f"@{subject.name}"))
            matches = opened.search(query, SearchOptions(top=20)).matches
            likely = [m.path for m in matches if (m.probability or 0) >= SHOWN_PROBABILITY]
            found.append(count(set(likely), subject))
    return found


def print_measures(way: str, counts: Sequence[Counts]) -> None:
    table = np.array([[one.right, one.told, one.all] for one in counts], np.float64)
    picks = np.random.default_rng(0).integers(0, len(table), (2000, len(table)))
    sums = table[picks].sum(axis=1)
    told = []
    for what, place in (("precision", 1), ("recall", 2)):
        low, high = np.percentile(sums[:, 0] / np.maximum(sums[:, place], 1), [2.5, 97.5])
        value = table[:, 0].sum() / max(table[:, place].sum(), 1)
        told.append(f"{what} {100 * value:.1f} ({100 * low:.1f} to {100 * high:.1f})")
    print(f"{way:<24} {', '.join(told)}")


def measure(
    rounds: Iterator[tuple[list[Path], list[Subject]]], extractor: FeatureExtractor
) -> None:
    """Print the measures of some rounds together; an object counts once per round."""
    counts: dict[str, list[Counts]] = {"albums": [], "searches by name": []}
    for gallery, subjects in rounds:
        with tempfile.TemporaryDirectory() as folder:
            index = Path(folder) / "index"
            arrive(index, gallery, subjects, extractor)
            counts["albums"] += by_albums(index, subjects)
            counts["searches by name"] += by_searches(index, subjects)
            differing, gap = largest_difference(index)
        print(
            f"{len(gallery)} photos, {len(subjects)} names: {differing} albums differ from those "
            f"made afresh; scores by at most {gap:.1e}"
        )
    for way, each in counts.items():
        print_measures(way, each)


def variants(photos: Sequence[Path], folder: Path, number: int) -> list[Path]:
    """So many different photos, made of some by cutting a little off and lighting them anew."""
    rng, made = np.random.default_rng(2), []
    for at in range(number):
        with Image.open(photos[at % len(photos)]) as file:
            picture = file.convert("RGB")
        left, top = (int(rng.integers(1, 12)) for _ in range(2))
        picture = picture.crop((left, top, picture.width, picture.height))
        made.append(folder / f"photo-{at:04}.jpg")
        ImageEnhance.Brightness(picture).enhance(rng.uniform(0.8, 1.2)).save(made[-1], quality=85)
    return made


def print_cost(root: Path, extractor: FeatureExtractor, photos: int, names: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        at, index = Path(folder), Path(folder) / "index"
        gallery, subjects = scene_subjects(root, at, names)
        made = variants(gallery, at, photos)
        # The codec is fitted before, and the names are given to what is there by then.
        index_photos(gallery, index, extractor, batch_size=extractor.batch_size)
        give_names(index, subjects)
        fill_albums(index)

        def seconds(work: Callable[[], object]) -> float:
            begin = time.perf_counter()
            work()
            return time.perf_counter() - begin

        every = [*gallery, *made]
        batch = extractor.batch_size
        without = seconds(lambda: index_photos(every, index, extractor, batch_size=batch))
        filled = seconds(lambda: fill_albums(index))
    print(f"{photos} photos indexed, {len(subjects)} names, {3 * len(subjects)} references")
    print(f"indexing {without:.1f} s, albums {filled:.1f} s: {100 * filled / without:.1f} % more")


def main() -> None:
    parser = make_parser(__doc__)
    add_model_options(parser)
    parser.add_argument("--scenes", type=Path)
    parser.add_argument("--folders", type=Path)
    parser.add_argument("--cost", type=Path, metavar="SCENES")
    parser.add_argument("--names", type=int, default=100, help="objects of scenes that get a name")
    parser.add_argument("--photos", type=int, default=1000, help="photos that --cost indexes")
    given = parser.parse_args()
    extractor = FeatureExtractor.load(given.model, given.device, batch_size=8)
    if given.scenes:
        with tempfile.TemporaryDirectory() as folder:
            measure(iter([scene_subjects(given.scenes, Path(folder), given.names)]), extractor)
    if given.folders:
        measure((folder_subjects(given.folders, turn) for turn in range(ROUNDS)), extractor)
    if given.cost:
        print_cost(given.cost, extractor, given.photos, given.names)


if __name__ == "__main__":
    main()
