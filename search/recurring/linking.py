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
from indexer.reader import IndexReader
from indexer.region_links import RegionLinks, read_links
from indexer.upkeep.link_commit import commit_links
from search.albums.contents import Contents
from search.candidates import CandidateMaps, ScoringReference, to_candidates
from search.clock import Clock
from search.fusion import default_weights, stored_weights
from search.recall import find_candidates, recall_by_maps
from search.reference import Reference
from search.rerank import score_references
from search.scores import DEFAULT_SCORE, SCORES, Score

if TYPE_CHECKING:
    import torch

# Regions that are proposed in a photo, and the photos that each is compared with (docs/scores.md).
_REGIONS = 2
_CANDIDATES = 32
# How much of a region must match cells of the other one, in both directions.
_OVERLAP = 0.3
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
    """What all comparisons share."""

    reader: IndexReader
    contents: Contents
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
    index_dir: Path, device: str = "cpu", on_step: Callable[[str, int, int], None] | None = None
) -> int:
    """Compare the regions of photos that are new, and store which show the same thing; returns how
    many photos were new.

    No model is needed. It commits every minute, so a run that is killed goes on from there. device:
    the torch device that compares. on_step: called with what is done, how many photos of it are
    done, and of how many. Raises IndexMissingError, IndexFormatError, IndexDamagedError,
    IndexBusyError, IndexWriteError.
    """
    import torch

    with IndexReader.open(index_dir) as reader:
        weights = stored_weights(reader.weights, index_dir) or default_weights(
            str(reader.fingerprint["model"])
        )
        score = SCORES[DEFAULT_SCORE].bound(weights)
        comparing = _Comparing(reader, Contents.of(reader), score, torch.device(device))
        links, basis = stored_links(reader), _basis(reader)
        new = 0
        committed = time.monotonic()
        for links, done in _steps(comparing, links, on_step or _ignore):
            new += done
            if time.monotonic() - committed > _COMMIT_SECONDS:
                commit_links(index_dir, links, basis, reader.fingerprint)
                committed = time.monotonic()
        if new:
            commit_links(index_dir, links, basis, reader.fingerprint)
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
    import torch

    reader, ids = comparing.reader, comparing.contents.find(links.contents)
    row_of = {number: row for row, number in enumerate(ids.tolist())}
    every = _maps_of(reader, ids[rows])
    first = np.searchsorted(links.photos, np.arange(len(ids) + 1))
    pairs: list[tuple[int, int]] = []
    strengths: list[float] = []
    with torch.inference_mode():
        for row in rows.tolist():
            maps = every.get(int(ids[row]))
            for region in [] if maps is None else range(first[row], first[row + 1]):
                shape = (reader.grid, reader.grid)
                reference = Reference(maps, links.cells[region].reshape(shape), None)
                for other, strength in _links_of(
                    comparing, links, region, reference, (ids, row_of, first)
                ):
                    pairs.append((region, other))
                    strengths.append(strength)
    found = np.array(pairs, np.int64).reshape(-1, 2), np.array(strengths, np.float32)
    return links.with_links(*found, compared=rows)


def _links_of(
    comparing: _Comparing,
    links: RegionLinks,
    region: int,
    reference: Reference,
    numbering: tuple[NDArray[np.int64], dict[int, int], NDArray[np.int64]],
) -> Iterator[tuple[int, float]]:
    """The regions that show what a region shows, and how surely.

    The strength of a link is the lower of two heights: how far the score of either region in the
    photo of the other is above chance, in standard deviations.
    numbering: the id of each photo, the row of each id, and the first region of each photo.
    """
    reader, score = comparing.reader, comparing.score
    ids, row_of, first = numbering
    own = int(ids[links.photos[region]])
    near = find_candidates(
        [recall_by_maps(reader, reference, score)], _CANDIDATES + 1, comparing.contents.ids
    ).ids
    near = np.array([n for n in np.sort(near).tolist() if n != own and n in row_of], np.int64)
    asked = reference.for_scoring(comparing.device)
    for _, part in reader.read_maps(near).by_codec():
        candidates = to_candidates(reader, part, [asked])
        heights = _height(links, region, score.function(asked, candidates).cpu().numpy())
        _, matched = candidates.best(asked)
        matched = matched.cpu().numpy()
        others, asking = [], []
        for place in np.flatnonzero(heights > 0).tolist():
            row = row_of[int(part.ids[place])]
            for other in range(first[row], first[row + 1]):
                if _reaches(links.cells[other], matched[place], reader.grid):
                    others.append((other, float(heights[place])))
                    asking.append(_as_reference(candidates, place, links.cells[other], reader.grid))
        if not others:
            continue
        [(_, back)] = reader.read_maps([own]).by_codec()
        photo = to_candidates(reader, back, asking)
        for (other, height), reverse in zip(others, asking, strict=True):
            back_height = _height(links, other, score.function(reverse, photo).cpu().numpy())[0]
            _, cells = photo.best(reverse)
            strength = min(height, float(back_height))
            if strength > 0 and _reaches(links.cells[region], cells[0].cpu().numpy(), reader.grid):
                yield other, strength


def _height(links: RegionLinks, region: int, scores: NDArray[np.float32]) -> NDArray[np.float32]:
    mean, deviation = links.chance[region]
    heights: NDArray[np.float32] = (scores - mean) / deviation
    return heights


def _reaches(cells: NDArray[np.bool_], matched: NDArray[np.int64], grid: int) -> bool:
    """Whether enough tokens match cells in a region or next to it. matched: (tokens,)."""
    from scipy import ndimage

    wide = ndimage.binary_dilation(cells.reshape(grid, grid)).ravel()
    return bool(wide[matched].mean() >= _OVERLAP)


def _as_reference(
    candidates: CandidateMaps, place: int, cells: NDArray[np.bool_], grid: int
) -> ScoringReference:
    """A region of one of some candidates as a reference."""
    import torch

    inside = torch.from_numpy(np.flatnonzero(cells)).to(candidates.valid.device)
    tokens, semantic = (
        _tokens(some, place)[inside] for some in (candidates.appearance, candidates.semantic)
    )
    positions = torch.stack([inside // grid, inside % grid], dim=1).float()
    return ScoringReference(tokens, semantic, None, positions)


def _tokens(maps: TokenMap, place: int) -> "torch.Tensor":
    """The decoded tokens of one photo, (cells, d)."""
    one = slice(place, place + 1)
    single = replace(maps, coded=maps.coded[one], scale=lambda: maps.steps[one])
    return single.decode()[0]


def _maps_of(reader: IndexReader, ids: NDArray[np.int64]) -> dict[int, FeatureMaps]:
    """The maps of photos by id, without damaged ones and those that are not finite."""
    batch = reader.read_maps(ids)
    appearance, semantic = reader.decode(batch)
    shape = (len(batch.ids), reader.grid, reader.grid, reader.dim)
    both = [maps.numpy().astype(np.float16).reshape(shape) for maps in (appearance, semantic)]
    found = {}
    for number, record, *maps in zip(
        batch.ids.tolist(), reader.photos(batch.ids), *both, strict=True
    ):
        frame = Frame(record.width, record.height, reader.image_size, reader.grid)
        found[number] = FeatureMaps(*maps, frame, record.content_hash)
    return found
