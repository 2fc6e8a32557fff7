"""One place in an object store. Of all modules, this alone imports obstore.

Credentials are the environment's, as the providers' own tools take them. What a server answers is
not repeated in errors but for its error code, because it can hold an access key's name.
"""

import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from features.errors import UnreadableError, WaldoError
from indexer.errors import IndexDamagedError

SCHEMES = ("s3", "gs", "az")

# A request that is refused or not answered is sent again, after longer and longer waits: seconds
# before the second try, and at most. Some 10 s in all.
RETRIES = 6
FIRST_WAIT = 0.2
LONGEST_WAIT = 5.0

_CREDENTIALS = {"AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken"}
_ARCHIVED = "InvalidObjectState"
_EXPIRED = {"ExpiredToken", "ExpiredTokenException", "RequestExpired"}
# Of S3, where a bucket lies in another region than the request says; the server may name it.
_OTHER_REGION = {"PermanentRedirect", "IllegalLocationConstraintException"}
_REGION = re.compile(r"<Region>([a-z0-9-]+)</Region>")
# Asked for credentials where the environment has none. An index may have "metadata" in its address.
_CREDENTIAL_HOSTS = re.compile(r"http://(169\.254\.|metadata(\.google\.internal)?/)")


# Bytes of a piece of an object that is read whole.
_PIECE = 8 * 2**20


class BucketError(WaldoError):
    """The object store refuses a request, or cannot be reached, or obstore is missing."""


class ConflictError(WaldoError):
    """An object that was to be created or replaced is there with a content of somebody else."""


@dataclass(frozen=True)
class ObjectVersion:
    """What tells one content of an object from the next. Stores have one of these, or both."""

    e_tag: str | None
    version: str | None


@dataclass(frozen=True)
class StoredObject:
    """An object as it was read."""

    content: bytes
    version: ObjectVersion


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """An object of a bucket. size: in bytes. mtime_ns: when it was last written, in nanoseconds
    since 1970. Servers tell whole seconds when they are asked for one object, and some tell more
    when they list them: these are whole seconds always.
    """

    key: str
    size: int
    mtime_ns: int


def url_in(address: Path | str) -> str | None:
    """The URL of an address in an object store, which a Path has with one slash less; None for a
    folder.
    """
    scheme, separator, place = str(address).partition(":/")
    if scheme not in SCHEMES or not separator:
        return None
    return f"{scheme}://{place.lstrip('/')}"


class Bucket:
    """The objects below one URL, such as s3://photos/index. Keys are relative to it."""

    def __init__(self, url: str, may_be_whole: bool = False) -> None:
        """may_be_whole: whether the URL may name a bucket alone, which nothing is written to.

        Raises WaldoError where the URL names no place in a bucket, BucketError.
        """
        self.url = url.rstrip("/")
        if not re.fullmatch(r"[a-z0-9]+://[^/]+" + ("(/.+)?" if may_be_whole else "/.+"), self.url):
            raise WaldoError(f"{url}: name a place in the bucket too, as in {self.url}/pictures")
        try:
            import obstore
            from obstore.store import from_url
        except ModuleNotFoundError:
            raise BucketError(
                f"{url}: object stores need obstore; run `pip install 'waldo-search[cloud]'`"
            ) from None
        self._obstore = obstore
        self._prefix = ""
        try:
            self._store = from_url(self.url, retry_config=_retrying(RETRIES))
            self._once = from_url(self.url, retry_config=_retrying(0))
        except (obstore.exceptions.BaseError, ValueError) as error:
            raise BucketError(
                f"{url}: the environment lacks or garbles what this store needs, such as an "
                "account; set the provider's variables"
            ) from error

    def below(self, place: str) -> "Bucket":
        """The objects below a place in this one, by the same connections: those of another Bucket
        would take some 50 ms to be made.
        """
        found = copy(self)
        found.url = f"{self.url}/{place}"
        found._prefix = f"{self._prefix}{place}/"
        return found

    def sizes(self) -> dict[str, int]:
        """The size of every object, bytes, by its key. Raises BucketError."""
        return {found.key: found.size for found in self.files("")}

    def older_than(self, age: timedelta) -> list[str]:
        """The keys of the objects that were stored at least so long ago. Raises BucketError."""
        latest = int((datetime.now(UTC) - age).timestamp()) * 10**9
        return [found.key for found in self.files("") if found.mtime_ns <= latest]

    def files(self, folder: str) -> Iterator[ObjectInfo]:
        """Every object below a key, in the order of the keys, as pages arrive. Raises BucketError.

        folder: "" for all objects.
        """
        with self._told(folder):
            for page in self._obstore.list(self._store, self._prefix + folder or None):
                yield from map(self._info, page)

    def info(self, key: str) -> ObjectInfo:
        """What is known of an object. Raises FileNotFoundError, BucketError."""
        try:
            with self._told(key):
                return self._info(self._obstore.head(self._store, self._prefix + key))
        except BucketError as error:
            if "status code: 4" in str(error.__cause__):
                # A refusal of HEAD has no body, and so no reason; that of a list has both.
                next(self.files(key), None)
            raise

    def pieces(self, key: str, least: int = _PIECE) -> Iterator[bytes]:
        """An object's content as it arrives, in pieces of at least so many bytes but for the last.

        One request, which ends where no more pieces are asked for. Raises FileNotFoundError,
        BucketError; UnreadableError where the object is archived.
        """
        with self._told(key):
            found = self._obstore.get(self._store, self._prefix + key)
            for piece in found.stream(min_chunk_size=least):
                yield bytes(piece)

    def read(self, key: str) -> StoredObject | None:
        """An object with its version; None where there is no such object. Raises BucketError."""
        try:
            with self._told(key):
                found = self._obstore.get(self._store, self._prefix + key)
                version = ObjectVersion(found.meta["e_tag"], found.meta["version"])
                return StoredObject(bytes(found.bytes()), version)
        except FileNotFoundError:
            return None

    def get(self, key: str) -> bytes | None:
        """An object's content; None where there is no such object. Raises BucketError."""
        found = self.read(key)
        return None if found is None else found.content

    def get_ranges(
        self, key: str, starts: Sequence[int], length: int, nearby: int
    ) -> list[memoryview]:
        """Parts of an object, each of `length` bytes, several requests at a time.

        Parts with fewer than `nearby` bytes between them share a request. Raises IndexDamagedError
        where the object is missing or ends earlier, BucketError.
        """
        try:
            with self._told(key):
                found = self._obstore.get_ranges(
                    *(self._store, self._prefix + key),
                    starts=starts,
                    lengths=[length] * len(starts),
                    coalesce=nearby,
                )
        except FileNotFoundError:
            raise IndexDamagedError("is missing in the bucket") from None
        parts = [memoryview(part) for part in found]
        if any(len(part) != length for part in parts):
            raise IndexDamagedError("the object ends early")
        return parts

    def put(self, key: str, path: Path) -> None:
        """Store a file's content, whatever is there: its key holds its digest, so that a repetition
        changes nothing, or the last writer may win. Raises BucketError, OSError.
        """
        with self._told(key):
            self._obstore.put(self._store, self._prefix + key, path)

    def delete(self, key: str) -> None:
        """Delete an object, if it is there. Raises BucketError."""
        try:
            with self._told(key):
                self._obstore.delete(self._store, self._prefix + key)
        except FileNotFoundError:
            return

    def create(self, key: str, content: bytes) -> ObjectVersion:
        """Store an object unless there is one. Raises ConflictError, BucketError."""
        return self._put_if_unchanged(key, content, None)

    def replace(self, key: str, content: bytes, version: ObjectVersion) -> ObjectVersion:
        """Store an object in place of a version of it. Raises ConflictError where another one is
        there, or none; BucketError.
        """
        return self._put_if_unchanged(key, content, version)

    def _put_if_unchanged(
        self, key: str, content: bytes, version: ObjectVersion | None
    ) -> ObjectVersion:
        """Store an object where a version of it, or None, is there; returns its new version.

        A request whose answer is lost may have succeeded. Sent again it would be refused, and its
        own success taken for a conflict. So what is there is read before another try.
        """
        mode: Any = "create"
        if version is not None:
            mode = {name: value for name, value in asdict(version).items() if value is not None}
        attempt = 0
        while True:
            try:
                with self._told(key):
                    stored = self._obstore.put(self._once, self._prefix + key, content, mode=mode)
                return ObjectVersion(stored["e_tag"], stored["version"])
            except (BucketError, FileExistsError, FileNotFoundError) as error:
                found = self.read(key)
                if found is not None and found.content == content:
                    return found.version
                if attempt == RETRIES and isinstance(error, BucketError):
                    raise
                if attempt == RETRIES or (found and found.version) != version:
                    raise ConflictError(f"{self.url}/{key}: another one was there first") from error
            time.sleep(min(LONGEST_WAIT, FIRST_WAIT * 2**attempt))
            attempt += 1

    def _info(self, found: Any) -> ObjectInfo:
        key = str(found["path"]).removeprefix(self._prefix)
        return ObjectInfo(key, int(found["size"]), int(found["last_modified"].timestamp()) * 10**9)

    @contextmanager
    def _told(self, key: str) -> Iterator[None]:
        """Turn errors of obstore into a BucketError of one line.

        FileNotFoundError and FileExistsError mean that an object is not there, or is.
        """
        exceptions = self._obstore.exceptions
        try:
            yield
        except (exceptions.AlreadyExistsError, exceptions.PreconditionError) as error:
            raise FileExistsError(key) from error
        except (exceptions.BaseError, FileNotFoundError, ValueError) as error:
            found = re.search(r"<Code>(\w+)</Code>", str(error))
            code = found.group(1) if found else ""
            if isinstance(error, FileNotFoundError) and code != "NoSuchBucket":
                raise
            where = f"{self.url}/{key}".rstrip("/")
            if code == _ARCHIVED:
                raise UnreadableError(f"{where}: is archived; restore it first") from error
            raise BucketError(f"{where}: {self._reason(error, code)}") from error

    def _reason(self, error: Exception, code: str) -> str:
        """What is wrong, and what to do."""
        exceptions, text = self._obstore.exceptions, str(error)
        if code == "NoSuchBucket":
            return "there is no such bucket; make it, or name another"
        if code in _EXPIRED:
            return "the credentials have expired; renew them"
        if code == "RequestTimeTooSkewed":
            return "the clock of this machine is wrong; set it"
        region = _REGION.search(text)
        if region or code in _OTHER_REGION or "incorrectly configured region" in text:
            name = region.group(1) if region else "its region"
            return f"the bucket lies in another region; set AWS_REGION to {name}"
        denied = (exceptions.PermissionDeniedError, exceptions.UnauthenticatedError)
        if code in _CREDENTIALS or isinstance(error, denied):
            return f"access is denied ({code or 'no reason given'}); check the credentials"
        if _CREDENTIAL_HOSTS.search(text):
            return "no credentials found; set them in the environment, such as AWS_ACCESS_KEY_ID"
        if "BadScheme" in text:
            return "the endpoint is http; set AWS_ALLOW_HTTP=true if that is meant"
        if isinstance(error, exceptions.InvalidPathError):
            key = re.search(r'[Pp]ath "(.*?)"', text)
            return f"no file can have the key {key.group(1) if key else ''}; rename that object"
        if isinstance(error, exceptions.GenericError):
            status = re.search(r"status code: (\d+)", text)
            said = code or (status and f"status {status.group(1)}")
            if not said:
                mend = "check the network and the endpoint, and run the same command again"
                return f"no answer; {mend}"
            return f"the store did not do what was asked ({said}); run the same command again"
        return f"the store refuses this ({type(error).__name__}); check the address"


def _retrying(times: int) -> Any:
    return {
        "max_retries": times,
        "retry_timeout": timedelta(seconds=120),
        "backoff": {
            "init_backoff": timedelta(seconds=FIRST_WAIT),
            "max_backoff": timedelta(seconds=LONGEST_WAIT),
            "base": 2,
        },
    }
