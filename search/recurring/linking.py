"""Comparing regions of photos: which of them show the same thing, from stored maps alone."""

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from features.errors import RegionError
from features.frame import Frame
from features.maps import FeatureMaps
from features.regions import salient_cells
from indexer.codec.tokens import TokenMap
from indexer.errors import IndexDamagedError
from indexer.reader import IndexReader
from indexer.region_links import RegionLinks, read_links
from indexer.upkeep.link_commit import commit_links
from search.albums.contents import Contents
from search.clock import Clock
from search.recall import find_candidates, recall_by_maps
from search.reference import Reference
from search.scoring.candidates import CandidateMaps, ScoringReference, to_candidates
from search.scoring.fusion import weights_of
from search.scoring.rerank import map_in_threads, score_references
from search.scoring.scores import DEFAULT_SCORE, SCORES, Score

if TYPE_CHECKING:
    import torch

# Regions that are proposed in a photo, and the photos that each is compared with (docs/scores.md).
_REGIONS = 2
_CANDIDATES = 32
# How much of a region must match cells of the other one, in both directions.
_OVERLAP = 0.3
# Weaker links count as none.
_LEAST_HEIGHT = 1.0
# Chance scores are told by their lower half, which photos that show the object hardly reach. In
# standard deviations, the lower quartile of a normal distribution is so far below its median.
_QUARTILE = 0.6745
# Photos that are worked on at a time, and seconds between commits.
_PHOTOS = 64
_COMMIT_SECONDS = 60.0
# Changed where links would come out otherwise, so that stored ones are made again.
_VERSION = 1


@dataclass(frozen=True)
class _Comparing:
    """What all comparisons share. allowed: ids that recall may find; None for all."""

    reader: IndexReader
    contents: Contents
    allowed: NDArray[np.int64] | None
    score: Score
    device: "torch.device"


def stored_links(reader: IndexReader) -> RegionLinks:
    """The links that an index holds, without photos that are gone. Raises IndexDamagedError."""
    file = reader.manifest.links
    if file is None:
        return RegionLinks.none(reader.grid)
    links, basis = read_links(reader.index_dir / file.name)
    if basis != _basis(reader):
        return RegionLinks.none(reader.grid)
    return links.of_photos(Contents.of(reader).find(links.contents) >= 0)


def link_photos(
    index_dir: Path,
    device: str = "cpu",
    on_step: Callable[[str, int, int], None] | None = None,
    on_commit: Callable[[], None] | None = None,
) -> int:
    """Compare the regions of photos that are new, and store which show the same thing; returns how
    many photos were new.

    No model is needed. It commits every minute, so a run that is killed goes on from there. device:
    the torch device that compares. on_step: called with what is done, how many photos of it are
    done, and of how many. on_commit: called after each commit. Links that are damaged are made
    again. Raises IndexMissingError, IndexFormatError, IndexDamagedError, IndexBusyError,
    IndexWriteError.
    """
    import torch

    with IndexReader.open(index_dir) as reader:
        score = SCORES[DEFAULT_SCORE].bound(weights_of(reader))
        comparing = _Comparing(
            reader, Contents.of(reader), reader.distinct(), score, torch.device(device)
        )
        basis = _basis(reader)
        try:
            links = stored_links(reader)
        except IndexDamagedError:  # nothing is lost that cannot be found again
            links = RegionLinks.none(reader.grid)

        def commit() -> None:
            commit_links(index_dir, links, basis, reader.fingerprint)
            if on_commit is not None:
                on_commit()

        new = 0
        _ = reader.word_recall  # read once, before threads need it
        committed = time.monotonic()
        for found, done in _steps(comparing, links, on_step or _ignore):
            links, new = found, new + done
            if time.monotonic() - committed > _COMMIT_SECONDS:
                commit()
                committed = time.monotonic()
        if new:
            commit()
    return new


def _ignore(step: str, done: int, of: int) -> None:
    pass


def _basis(reader: IndexReader) -> dict[str, Any]:
    """What links depend on besides photos."""
    return {"version": _VERSION, "codecs": [file.sha256 for file in reader.manifest.codecs[:1]]}


def _steps(
    comparing: _Comparing, links: RegionLinks, on_step: Callable[[str, int, int], None]
) -> Iterator[tuple[RegionLinks, int]]:
    """The links after each step, and how many photos it compared.

    First regions are proposed in all new photos, then they are compared.
    """
    known = set(comparing.contents.find(links.contents).tolist())
    new = [number for number in comparing.contents.ids.tolist() if number not in known]
    for start in range(0, len(new), _PHOTOS):
        on_step("looking for objects", start, len(new))
        links = _propose(comparing, links, np.sort(new[start : start + _PHOTOS]))
        yield links, 0
    left = np.flatnonzero(~links.compared)
    for start in range(0, len(left), _PHOTOS):
        on_step("comparing objects", start, len(left))
        some = left[start : start + _PHOTOS]
        links = _compare(comparing, links, some)
        yield links, len(some)


def _propose(comparing: _Comparing, links: RegionLinks, ids: NDArray[np.int64]) -> RegionLinks:
    """The links with regions of further photos; those of damaged photos are left for later."""
    reader = comparing.reader
    every = _maps_of(reader, ids)
    references = [
        [Reference(maps, cells, None) for cells in _regions_of(maps)] for maps in every.values()
    ]
    flat = [reference for some in references for reference in some]
    if not flat:
        return links
    asked = [reference.for_scoring(comparing.device) for reference in flat]
    sample = np.sort(comparing.contents.sample)
    scored = score_references(reader, sample, asked, [comparing.score], Clock())
    low, middle = np.quantile(scored.by_score[comparing.score.name], [0.25, 0.5], axis=1)
    chance = np.stack([middle, np.maximum((middle - low) / _QUARTILE, 1e-6)], axis=1)
    hashes = b"".join(bytes.fromhex(maps.content_hash) for maps in every.values())
    return links.with_photos(
        np.frombuffer(hashes, np.uint8).reshape(-1, 32),
        np.repeat(np.arange(len(every)), [len(some) for some in references]),
        np.stack([reference.cells.ravel() for reference in flat]),
        chance.astype(np.float32),
    )


def _regions_of(maps: FeatureMaps) -> list[NDArray[np.bool_]]:
    """The regions that are proposed in a photo, (grid, grid) bool each, at least one."""
    regions: list[NDArray[np.bool_]] = []
    with suppress(RegionError):  # nothing of the photo is left
        while len(regions) < _REGIONS:
            regions.append(salient_cells(maps, regions))
    return regions


def _compare(comparing: _Comparing, links: RegionLinks, rows: NDArray[np.int64]) -> RegionLinks:
    """The links with those of the regions of some photos. rows: these photos."""
    known = _Known.of(comparing, links)
    every = _maps_of(comparing.reader, known.ids[rows])

    def links_of_photo(row: int) -> list[tuple[int, int, float]]:
        maps = every.get(int(known.ids[row]))
        if maps is None:
            return []
        return [
            (region, other, strength)
            for region in known.regions_of(row)
            for other, strength in _links_of(comparing, known, region, maps)
        ]

    with map_in_threads(comparing.device) as in_threads:
        found = [link for some in in_threads(links_of_photo, rows.tolist()) for link in some]
    pairs = np.array([link[:2] for link in found], np.int64).reshape(-1, 2)
    strengths = np.array([link[2] for link in found], np.float32)
    return links.with_links(pairs, strengths, compared=rows)


@dataclass(frozen=True)
class _Known:
    """The regions that may be linked. ids: (n,), of the photos of the links. rows: the place of
    each id among these. first: (n + 1,), the first region of each photo.
    """

    links: RegionLinks
    ids: NDArray[np.int64]
    rows: dict[int, int]
    first: NDArray[np.int64]

    @classmethod
    def of(cls, comparing: _Comparing, links: RegionLinks) -> "_Known":
        ids = comparing.contents.find(links.contents)
        first = np.searchsorted(links.photos, np.arange(len(ids) + 1))
        return cls(links, ids, {number: row for row, number in enumerate(ids.tolist())}, first)

    def regions_of(self, row: int) -> range:
        return range(int(self.first[row]), int(self.first[row + 1]))

    def heights(self, region: int, scores: "torch.Tensor") -> NDArray[np.float32]:
        """How far scores by a region are above chance, in standard deviations."""
        mean, deviation = self.links.chance[region]
        heights: NDArray[np.float32] = (scores.cpu().numpy() - mean) / deviation
        return heights

    def reaches(self, region: int, matched: "torch.Tensor", grid: int) -> bool:
        """Whether enough tokens match cells in a region or next to it. matched: (tokens,)."""
        from scipy import ndimage

        wide = ndimage.binary_dilation(self.links.cells[region].reshape(grid, grid)).ravel()
        return bool(wide[matched.cpu().numpy()].mean() >= _OVERLAP)


def _links_of(
    comparing: _Comparing, known: _Known, region: int, maps: FeatureMaps
) -> list[tuple[int, float]]:
    """The regions of other photos that show what a region shows, and the strength of each link.

    The strength is the lower of two heights: how far the score of either region in the photo of the
    other is above chance. maps: of the region's photo.
    """
    import torch

    reader, grid = comparing.reader, comparing.reader.grid
    own = int(known.ids[known.links.photos[region]])
    reference = Reference(maps, known.links.cells[region].reshape(grid, grid), None)
    recall = recall_by_maps(reader, reference, comparing.score)
    ids = find_candidates([recall], _CANDIDATES + 1, comparing.allowed).ids
    ids = np.sort([number for number in ids.tolist() if number != own and number in known.rows])
    asked = reference.for_scoring(comparing.device)
    found: list[tuple[int, float]] = []
    with torch.inference_mode():
        for _, part in reader.read_maps(ids).by_codec():
            candidates = to_candidates(reader, part, [asked])
            heights = known.heights(region, comparing.score.function(asked, candidates))
            _, matched = candidates.best(asked)
            likely = [
                (other, place)
                for place in np.flatnonzero(heights >= _LEAST_HEIGHT).tolist()
                for other in known.regions_of(known.rows[int(part.ids[place])])
                if known.reaches(other, matched[place], grid)
            ]
            asking = [
                _as_reference(candidates, place, known.links.cells[other], grid)
                for other, place in likely
            ]
            back = _heights_back(comparing, known, own, region, [o for o, _ in likely], asking)
            found += [
                (other, min(float(heights[place]), height))
                for (other, place), height in zip(likely, back, strict=True)
                if height >= _LEAST_HEIGHT
            ]
    return found


def _heights_back(
    comparing: _Comparing,
    known: _Known,
    own: int,
    region: int,
    others: list[int],
    asking: list[ScoringReference],
) -> list[float]:
    """The height of each region's score in the photo `own`; 0 where it does not match `region`."""
    if not others:
        return []
    heights = []
    [(_, part)] = comparing.reader.read_maps([own]).by_codec()
    photo = to_candidates(comparing.reader, part, asking)
    for other, reverse in zip(others, asking, strict=True):
        [height] = known.heights(other, comparing.score.function(reverse, photo))
        _, matched = photo.best(reverse)
        reaches = known.reaches(region, matched[0], comparing.reader.grid)
        heights.append(float(height) if reaches else 0.0)
    return heights


def _as_reference(
    candidates: CandidateMaps, place: int, cells: NDArray[np.bool_], grid: int
) -> ScoringReference:
    """A region of one of some candidates as a reference."""
    import torch

    inside = torch.from_numpy(np.flatnonzero(cells)).to(candidates.valid.device)
    tokens, semantic = (
        _decoded(maps, place, inside) for maps in (candidates.appearance, candidates.semantic)
    )
    positions = torch.stack([inside // grid, inside % grid], dim=1).float()
    return ScoringReference(tokens, semantic, None, positions)


def _decoded(maps: TokenMap, place: int, inside: "torch.Tensor") -> "torch.Tensor":
    """Some cells of one photo, (n, d). inside: (n,) int64."""
    coded, steps = maps.coded[place, inside][None], maps.steps[place, inside][None]
    return replace(maps, coded=coded, scale=lambda: steps).decode()[0]


def _maps_of(reader: IndexReader, ids: NDArray[np.int64]) -> dict[int, FeatureMaps]:
    """The maps of photos by id, without damaged ones."""
    batch = reader.read_maps(ids)
    shape = (len(batch.ids), reader.grid, reader.grid, reader.dim)
    appearance, semantic = (
        maps.numpy().astype(np.float16).reshape(shape) for maps in reader.decode(batch)
    )
    found = {}
    for place, record in enumerate(reader.photos(batch.ids)):
        frame = Frame(record.width, record.height, reader.image_size, reader.grid)
        found[record.id] = FeatureMaps(
            appearance[place], semantic[place], frame, record.content_hash
        )
    return found
