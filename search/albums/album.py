"""Albums as people read them: which photos show the object of a name, from what is stored alone."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from indexer.collection import Collection
from indexer.errors import UnknownNameError
from indexer.named_objects import Box, NameSummary, read_name_summary, unknown_name
from indexer.store.album_rows import AlbumRows, StoredAlbum, content_keys, stored_albums
from search.albums.contents import Contents
from search.scoring.confidence import MINIMUM_PHOTOS, probabilities

# Photos that are less likely to show the object are not told.
LEAST_PROBABILITY = 0.05
# An album shows photos of at least this probability, unless its threshold was fitted.
SHOWN_PROBABILITY = 0.5
# A threshold is fitted to so many photos that show the object, and as many that do not.
_ENOUGH_SAID = 10
# Of the scores of all photos, so many quantiles are told.
_QUANTILES = 500
# Boxes that overlap as much are of one region.
_SAME_REGION = 0.5


@dataclass(frozen=True)
class AlbumPhoto:
    """A photo that may show the object of a name.

    id: of the photo; of copies, the lowest. probability: 0..1, that it shows the object; 1 or 0
    where a person said so; None where too few photos are compared to estimate it. score: its
    likeness to the object, by the name's references that are of other photos; None where it was not
    compared yet. box: [x0, y0, x1, y1] in pixels of the upright photo, None where it is not known
    yet; what a person said comes before what was found. said: what a person said of it, None for
    nothing; the photos that the object was named by show it. shown: whether the album
    shows it. rivals: other names whose albums have this region of the photo, too. lost_to: the one
    of them that is likelier, so that this album does not show the photo; None where none is.
    """

    id: int
    probability: float | None
    score: float | None
    box: Box | None
    said: bool | None
    shown: bool
    rivals: tuple[str, ...] = ()
    lost_to: str | None = None


@dataclass(frozen=True)
class Album:
    """The photos of one name. photos: best first, also those that it does not show.

    waiting: photos of the index that were not compared yet. threshold: the score from which it
    shows photos, fitted to what people said; None where a probability of 0.5 decides. estimated:
    whether there are probabilities; where there are none, the album shows what people said alone.
    """

    name: str
    photos: tuple[AlbumPhoto, ...]
    waiting: int
    threshold: float | None
    estimated: bool = True

    @property
    def shown(self) -> tuple[AlbumPhoto, ...]:
        """The photos that it shows."""
        return tuple(photo for photo in self.photos if photo.shown)


def read_albums(reader: Collection, min_probability: float | None = None) -> dict[str, Album]:
    """The albums of all names, sorted by name.

    min_probability: 0.05..1, what albums show in place of what their thresholds say. Raises
    IndexDamagedError where the file of a name is damaged.
    """
    manifest = reader.manifest
    stored = stored_albums(reader.index_dir, manifest)
    contents = Contents.of(reader)
    albums = {}
    for record in manifest.names:
        known = None if stored is None else stored.by_object.get(record.file.name)
        summary = read_name_summary(reader.index_dir / record.file.name)
        album = known or StoredAlbum(0, AlbumRows.none())
        albums[record.name] = _album(record.name, album, summary, contents, min_probability)
    return _without_contests(albums)


def read_album(reader: Collection, name: str, min_probability: float | None = None) -> Album:
    """The album of one name. Raises UnknownNameError, and as `read_albums`."""
    albums = read_albums(reader, min_probability)
    if name not in albums:
        raise _unknown(reader, name)
    return albums[name]


def names_of_photos(albums: Iterable[Album]) -> dict[int, list[str]]:
    """The names whose albums show each photo, by its id."""
    names: dict[int, list[str]] = defaultdict(list)
    for album in albums:
        for photo in album.shown:
            names[photo.id].append(album.name)
    return names


def assess(rows: AlbumRows, summary: NameSummary, contents: Contents) -> NDArray[np.float64] | None:
    """The probability that each photo shows the object, (m,); None where it cannot be estimated.

    It is that of a search (`search.scoring.confidence`), with one difference: how chance scores is
    told by the photos of the sample and the listed ones, without those that a person said show the
    object.
    It depends on which photos there are, and not on the order in which they came.
    """
    ids, said = contents.find(rows.contents), said_of(rows, summary)
    counts = (ids >= 0) & (said != 1)
    sampled = counts & np.isin(ids, contents.sample)
    if sampled.sum() < MINIMUM_PHOTOS:
        return None
    chance = _scores_of_all(
        rows.scores[counts & rows.listed],
        rows.scores[sampled & ~rows.listed],
        len(contents) - int((said == 1).sum()),
    )
    counts_as_first = rows.listed & (ids >= 0) & (said < 0)
    likely = probabilities(rows.scores, len(contents), ~counts_as_first, chance)
    if likely is not None:
        likely[said >= 0] = said[said >= 0]
    return likely


def _scores_of_all(
    listed: NDArray[np.float32], others: NDArray[np.float32], count: int
) -> NDArray[np.float32]:
    """The scores of all photos, as quantiles: those of the listed ones are known, and some of the
    others stand for all of these, so that the highest ones are known best (post-stratification).

    count: all photos that the two are of.
    """
    weight = max(0, count - len(listed)) / max(1, len(others))
    scores = np.concatenate([listed, others])
    weights = np.concatenate([np.ones(len(listed)), np.full(len(others), weight)])
    order = np.argsort(scores, kind="stable")
    below = np.cumsum(weights[order]) - weights[order] / 2
    wanted = (np.arange(_QUANTILES) + 0.5) / _QUANTILES * weights.sum()
    return np.interp(wanted, below, scores[order]).astype(np.float32)


def said_of(rows: AlbumRows, summary: NameSummary) -> NDArray[np.int8]:
    """What people said of each photo, (m,) int8: 1 where it shows the object, 0 where it does not,
    -1 where nothing was said. The photos that the object was named by show it.
    """
    told = {bytes.fromhex(content): shows for content, shows in summary.said.items()}
    told |= dict.fromkeys(map(bytes.fromhex, summary.named_by), True)
    said = np.full(len(rows), -1, np.int8)
    if told:
        for row in np.flatnonzero(np.isin(content_keys(rows.contents), list(told))).tolist():
            said[row] = told[bytes(rows.contents[row])]
    return said


def fitted_threshold(scores: Sequence[float], shows: Sequence[bool]) -> float | None:
    """The score that errs least: of all middles between neighbouring scores, the one with the
    fewest photos on the wrong side, and of equally good ones the middle one. None for fewer than
    ten photos of either kind.
    """
    right = np.array(shows, np.bool_)
    if min(right.sum(), (~right).sum()) < _ENOUGH_SAID:
        return None
    order = np.argsort(scores, kind="stable")
    values, right = np.array(scores, np.float64)[order], right[order]
    # Of a threshold between row i - 1 and row i: what it misses below, and lets in from there on.
    wrong = np.concatenate([[0], np.cumsum(right)]) + np.append(np.cumsum(~right[::-1])[::-1], 0)
    middles = np.concatenate([values[:1], (values[1:] + values[:-1]) / 2, values[-1:] + 1e-6])
    best = np.flatnonzero(wrong == wrong.min())
    return float(middles[best[len(best) // 2]])


def _album(
    name: str,
    album: StoredAlbum,
    summary: NameSummary,
    contents: Contents,
    min_probability: float | None,
) -> Album:
    rows, ids = album.rows, contents.find(album.rows.contents)
    likely, said = assess(rows, summary, contents), said_of(rows, summary)
    listed = rows.listed & (ids >= 0)
    if likely is not None:
        listed &= (likely >= LEAST_PROBABILITY) | (said >= 0)
    photos, told = [], []
    for row in np.flatnonzero(listed).tolist():
        content, score = bytes(rows.contents[row]).hex(), float(rows.scores[row])
        spoken = None if said[row] < 0 else bool(said[row])
        probability = None if likely is None else float(likely[row])
        if spoken is not None:
            probability = float(spoken)
        if content in summary.said:
            told.append((score, summary.said[content]))
        box = summary.boxes.get(content)
        if box is None and rows.boxes[row, 0] >= 0:
            x0, y0, x1, y1 = rows.boxes[row].tolist()
            box = (x0, y0, x1, y1)
        photos.append(AlbumPhoto(int(ids[row]), probability, score, box, spoken, shown=False))
    photos += _not_compared(rows, summary, contents)
    threshold = fitted_threshold(*zip(*told, strict=True)) if told else None
    decided = [
        replace(photo, shown=_is_shown(photo, threshold, min_probability)) for photo in photos
    ]
    decided.sort(key=lambda photo: (*_likeliness(photo), photo.id))
    waiting = int((contents.ids >= album.covers).sum())
    return Album(name, tuple(decided), waiting, threshold, likely is not None)


def _not_compared(rows: AlbumRows, summary: NameSummary, contents: Contents) -> list[AlbumPhoto]:
    """The photos that people said something of, as far as they have no row yet."""
    told = {**summary.said, **dict.fromkeys(summary.named_by, True)}
    missing = sorted(set(told) - {bytes(row).hex() for row in rows.contents[rows.listed]})
    if not missing:
        return []
    ids = contents.find(np.frombuffer(bytes.fromhex("".join(missing)), np.uint8).reshape(-1, 32))
    return [
        AlbumPhoto(number, float(told[one]), None, summary.boxes.get(one), told[one], shown=False)
        for number, one in zip(ids.tolist(), missing, strict=True)
        if number >= 0
    ]


def _is_shown(photo: AlbumPhoto, threshold: float | None, min_probability: float | None) -> bool:
    if photo.said is not None or photo.score is None:
        return photo.said is True
    if threshold is not None and min_probability is None:
        return photo.score >= threshold
    least = SHOWN_PROBABILITY if min_probability is None else min_probability
    return photo.probability is not None and photo.probability >= least


def _without_contests(albums: Mapping[str, Album]) -> dict[str, Album]:
    """The albums, where each region of a photo is of one name alone, unless people said that it is
    of several.
    """
    claims: dict[int, list[tuple[str, AlbumPhoto]]] = defaultdict(list)
    for album in albums.values():
        for photo in album.shown:
            claims[photo.id].append((album.name, photo))
    decided = {}
    for name, album in albums.items():
        photos = tuple(
            _contested(name, photo, claims[photo.id]) if photo.shown else photo
            for photo in album.photos
        )
        decided[name] = replace(album, photos=photos)
    return decided


def _contested(
    name: str, photo: AlbumPhoto, claims: Sequence[tuple[str, AlbumPhoto]]
) -> AlbumPhoto:
    """A photo beside other names' claims to it."""
    rivals = [
        (other, claim)
        for other, claim in claims
        if other != name
        and photo.box is not None
        and claim.box is not None
        and _overlap(photo.box, claim.box) >= _SAME_REGION
    ]
    if not rivals:
        return photo
    best, claim = min(rivals, key=lambda each: (_standing(each[1]), each[0]))
    wins = photo.said is True or (_standing(photo), name) < (_standing(claim), best)
    return replace(
        photo,
        shown=wins,
        rivals=tuple(other for other, _ in rivals),
        lost_to=None if wins else best,
    )


def _standing(photo: AlbumPhoto) -> tuple[bool, float, float]:
    """Smaller for the claim that comes first: what a person said, then what is likelier."""
    return photo.said is not True, *_likeliness(photo)


def _likeliness(photo: AlbumPhoto) -> tuple[float, float]:
    """Smaller for what is likelier to show the object."""
    return -(photo.probability or 0.0), -(photo.score or 0.0)


def _overlap(one: Box, other: Box) -> float:
    """Intersection over union of two boxes."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    both = max(0, width) * max(0, height)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    return both / (sum(areas) - both)


def _unknown(reader: Collection, name: str) -> UnknownNameError:
    return unknown_name(reader.place, list(reader.names), name)
