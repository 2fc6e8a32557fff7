"""Photos that are sent to the server: bounded, checked, and kept under names of its own."""

import asyncio
import hashlib
import math
import os
import re
import tempfile
from collections import OrderedDict
from collections.abc import AsyncIterable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from features.errors import NotAPictureError, WaldoError
from features.photo import load_photo
from features.picture import TooManyPixelsError, open_picture
from search.server.request_bodies import RequestError

MOST_BYTES = 64 << 20
MOST_PIXELS = 100_000_000
# The last uploads are kept: what people still look at, in at most 64 x 64 MiB on disk.
_KEPT = 64
# Seconds within which an upload must be complete.
_PATIENCE = 120.0
# Uploads that are decoded at a time: each takes up to 300 MB meanwhile.
_DECODED_TOGETHER = 2


@dataclass(frozen=True)
class Upload:
    """A photo that was sent. key: names it in requests. path: its file, until the server stops.
    content_hash: SHA-256, hexadecimal. width, height: pixels of the upright photo.
    """

    key: str
    path: Path
    content_hash: str
    width: int
    height: int


class Uploads:
    """The photos that were sent lately, in a folder of their own, which is deleted at the end."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="waldo-")
        self._known: OrderedDict[str, Upload] = OrderedDict()
        self._decoding = asyncio.Semaphore(_DECODED_TOGETHER)

    def close(self) -> None:
        self._folder.cleanup()

    def get(self, key: str) -> Upload:
        """An upload by its key. Raises RequestError where it is unknown, or is kept no more."""
        if key not in self._known:
            raise RequestError("this photo is not here any more; send it again", 404)
        self._known.move_to_end(key)
        return self._known[key]

    def holds(self, path: Path) -> bool:
        """Whether a file is one of these, which nobody finds when the server has stopped."""
        return path.resolve().is_relative_to(Path(self._folder.name).resolve())

    def key_of(self, content_hash: str) -> str | None:
        """The key of the upload with this content; None where it is not here."""
        key = _key(content_hash)
        return key if key in self._known else None

    async def receive(self, chunks: AsyncIterable[bytes]) -> Upload:
        """Keep the photo whose bytes arrive.

        Raises RequestError where it has too many bytes or pixels, takes too long, or is no photo.
        What the chunks raise, where the sender is gone, leaves nothing behind.
        """
        handle, name = tempfile.mkstemp(dir=self._folder.name)
        path = Path(name)
        try:
            with os.fdopen(handle, "wb") as file:
                digest = await _write(chunks, file)
            async with self._decoding:
                upload = await asyncio.to_thread(_check, path, digest)
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        self._keep(upload)
        return upload

    def without_files(self, line: str) -> str:
        """A line for people, without the names that files have in this folder."""
        return re.sub(
            rf"{re.escape(self._folder.name)}/[\w./]+|\b[0-9a-f]{{32}}\b", "the photo", line
        )

    def scratch(self) -> tempfile.TemporaryDirectory[str]:
        """A folder for the files of one request."""
        return tempfile.TemporaryDirectory(dir=self._folder.name)

    def _keep(self, upload: Upload) -> None:
        self._known[upload.key] = upload
        self._known.move_to_end(upload.key)
        while len(self._known) > _KEPT:
            _, oldest = self._known.popitem(last=False)
            oldest.path.unlink(missing_ok=True)


async def _write(chunks: AsyncIterable[bytes], file: BinaryIO) -> str:
    """Write chunks to a file; returns their SHA-256. Raises as `receive`."""
    digest, size = hashlib.sha256(), 0
    try:
        async with asyncio.timeout(_PATIENCE):
            async for chunk in chunks:
                size += len(chunk)
                if size > MOST_BYTES:
                    limit = MOST_BYTES >> 20
                    raise RequestError(f"the photo has more than {limit} MiB; scale it down", 413)
                digest.update(chunk)
                file.write(chunk)
    except TimeoutError:
        raise RequestError("the photo did not arrive in time; send it again", 408) from None
    if size == 0:
        raise RequestError("no photo was sent", 400)
    return digest.hexdigest()


def _check(path: Path, content_hash: str) -> Upload:
    """Decode an upload, and give its file the name of its key. Raises RequestError."""
    if _pixels(path) > MOST_PIXELS:
        limit = MOST_PIXELS // 1_000_000
        raise RequestError(f"the photo has more than {limit} megapixels; scale it down", 413)
    try:
        photo = load_photo(path, at_least=1)
    except NotAPictureError:
        raise RequestError("this file is not a picture that Waldo reads", 415) from None
    except WaldoError as error:
        raise RequestError(str(error), 422) from None
    key = _key(content_hash)
    return Upload(key, path.replace(path.with_name(key)), content_hash, photo.width, photo.height)


def _key(content_hash: str) -> str:
    return content_hash[:32]


def _pixels(path: Path) -> float:
    """The pixels of a picture by its header; 0 where that cannot be read, as `load_photo` says."""
    try:
        with path.open("rb") as file:
            width, height = open_picture(file).size
            return width * height
    except TooManyPixelsError:
        return math.inf
    except Exception:  # decoders raise errors of any kind
        return 0
