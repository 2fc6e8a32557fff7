"""Why a photo matches: the object and the match side by side, and lines between what is alike."""

from collections.abc import Iterable
from dataclasses import dataclass

from PIL import Image

from features.photo import Photo
from features.regions import Box
from search.answer import Match
from search.commands.pages.rendering import Picture

# Each of the two photos is drawn into a square of this side, in pixels, this far apart.
_SIDE = 240
_GAP = 12
# How much of the photo around the object is shown: the square's side over the object's.
_AROUND = 1.25
# The object is drawn again for each match, so its JPEG is a small one.
_QUALITY = 70
_GREY = (128, 128, 128)
# Pixels by which lines bend, one after the other, so that those along one row are told apart.
_BENDS = (-16, -8, 0, 8, 16)
# Degrees of hue between one line and the next: multiples of the golden angle are far apart.
_HUE_STEP = 137.5


@dataclass(frozen=True)
class Line:
    """From a place of the object by a control point (of a quadratic curve) to a place of the match;
    (x, y) in pixels of the picture. hue: degrees.
    """

    start: tuple[float, float]
    control: tuple[float, float]
    end: tuple[float, float]
    hue: float
    similarity: float


@dataclass(frozen=True)
class PairPicture:
    """The object on the left and the match on the right. lines: to draw over them."""

    picture: Picture
    lines: tuple[Line, ...]


@dataclass(frozen=True)
class _Panel:
    """The part of a photo that is drawn. x0, y0, x1, y1: in pixels of the upright photo.
    scale: pixels of the panel per pixel of the photo; the part is in the panel's middle.
    """

    x0: float
    y0: float
    x1: float
    y1: float
    scale: float

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels of the panel."""
        width, height = (self.x1 - self.x0) * self.scale, (self.y1 - self.y0) * self.scale
        return max(1, round(width)), max(1, round(height))

    @property
    def corner(self) -> tuple[int, int]:
        """(x, y) of the part's upper left corner in the panel."""
        width, height = self.size
        return (_SIDE - width) // 2, (_SIDE - height) // 2

    def draw(self, photo: Photo) -> Image.Image:
        """The part in a grey square."""
        across, down = photo.image.width / photo.width, photo.image.height / photo.height
        box = (self.x0 * across, self.y0 * down, self.x1 * across, self.y1 * down)
        part = photo.image.resize(self.size, Image.Resampling.LANCZOS, box, reducing_gap=3.0)
        panel = Image.new("RGB", (_SIDE, _SIDE), _GREY)
        panel.paste(part, self.corner)
        return panel

    def place(self, point: tuple[float, float]) -> tuple[float, float]:
        """A point of the photo in the panel, (x, y) in pixels."""
        left, top = self.corner
        return left + (point[0] - self.x0) * self.scale, top + (point[1] - self.y0) * self.scale


def draw_pairs(reference: Photo, object_box: Box, candidate: Photo, match: Match) -> PairPicture:
    """The pairs of a match.

    reference: the photo of the object, which is inside `object_box`, [x0, y0, x1, y1] in pixels.
    candidate: the match's photo.
    """
    left = _panel(reference, object_box, (pair.query for pair in match.pairs))
    right = _panel(candidate, match.box, (pair.match for pair in match.pairs))
    picture = Image.new("RGB", (2 * _SIDE + _GAP, _SIDE), _GREY)
    picture.paste(left.draw(reference), (0, 0))
    picture.paste(right.draw(candidate), (_SIDE + _GAP, 0))
    lines = []
    for number, pair in enumerate(match.pairs):
        (x0, y0), (x1, y1) = left.place(pair.query), right.place(pair.match)
        x1 += _SIDE + _GAP
        control = (x0 + x1) / 2, (y0 + y1) / 2 + _BENDS[number % len(_BENDS)]
        hue = number * _HUE_STEP % 360
        lines.append(Line((x0, y0), control, (x1, y1), hue, pair.similarity))
    return PairPicture(Picture.of(picture, _QUALITY), tuple(lines))


def _panel(photo: Photo, box: Box, points: Iterable[tuple[float, float]]) -> _Panel:
    """A square around a box and points, as far as the photo reaches."""
    xs, ys = zip((box[0], box[1]), (box[2], box[3]), *points, strict=True)
    side = _AROUND * max(max(xs) - min(xs), max(ys) - min(ys))
    x0, x1 = _span((min(xs) + max(xs)) / 2, side, photo.width)
    y0, y1 = _span((min(ys) + max(ys)) / 2, side, photo.height)
    return _Panel(x0, y0, x1, y1, _SIDE / side)


def _span(middle: float, side: float, length: int) -> tuple[float, float]:
    """A part of this side around the middle, moved into 0..length; all where that is shorter."""
    start = max(0.0, min(middle - side / 2, length - side))
    return start, min(float(length), start + side)
