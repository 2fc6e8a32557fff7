"""Naming objects in an index, changing these names, and keeping what people say of photos: each is
one commit.
"""

import hashlib
import shlex
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from features.errors import WaldoError
from indexer.named_objects import (
    NamedObject,
    NamedView,
    Verdict,
    read_named_object,
    unknown_name,
    write_named_object,
)
from indexer.store.files import describe_file, sync_folder, writing
from indexer.store.folder import remove_leftovers
from indexer.store.locks import writer_lock
from indexer.store.manifest import (
    Fingerprint,
    Manifest,
    NameRecord,
    check_fingerprint,
    read_manifest,
    write_manifest,
)

_LONGEST = 100
# The photos of each kind, confirmed and refused, that an object is compared by.
MOST_SAID_VIEWS = 12


def name_object(index_dir: Path, named: NamedObject, fingerprint: Fingerprint) -> NamedObject:
    """Keep an object in an index. Where the name is known, the new photos are added to it, but for
    those whose same cells it has already. A photo that an object is named by shows it, whatever
    people said of that photo before.

    fingerprint: what the object's features depend on, as `IndexReader.fingerprint`. Returns the
    object as it is kept. Raises WaldoError for a name that cannot be one, FingerprintError where
    the index was made anew with another model since, IndexMissingError, IndexBusyError,
    IndexFormatError, IndexDamagedError, IndexWriteError.
    """
    check_name(named.name)
    kept = named

    def change(manifest: Manifest, number: int) -> tuple[NameRecord, ...]:
        nonlocal kept
        check_fingerprint(index_dir, manifest, fingerprint)
        known = manifest.named(named.name)
        if known is not None:
            before = read_named_object(index_dir / known.file.name)
            kept = _joined(replace(before, name=named.name), named, holds=named)
        return _with(manifest, _store(index_dir, kept, number))

    _commit(index_dir, change)
    return kept


def rename_object(index_dir: Path, old: str, new: str) -> None:
    """Give an object another name. Raises as `name_object`, and WaldoError where the old name is
    unknown or the new one is taken.
    """
    check_name(new)

    def change(manifest: Manifest, _: int) -> tuple[NameRecord, ...]:
        known = _known(index_dir, manifest, old)
        if new == old:
            raise WaldoError(f"{new}: is its name already")
        if manifest.named(new) is not None:
            raise WaldoError(
                f"{new}: is a name already; `{shlex.join(['waldo', 'merge', new, old])}` makes one "
                "of both"
            )
        return _with(_without(manifest, old), replace(known, name=new))

    _commit(index_dir, change)


def merge_objects(index_dir: Path, name: str, other: str) -> NamedObject:
    """Make two names one: the photos of the other, and what people said of it, are added to the
    first, and the other name is forgotten.

    Where people said different things of a photo, also by naming it, what they said of the first
    name holds. Returns the object as it is kept. Raises as `name_object`, and WaldoError where a
    name is unknown or both are the same.
    """
    kept: NamedObject | None = None

    def change(manifest: Manifest, number: int) -> tuple[NameRecord, ...]:
        nonlocal kept
        records = [_known(index_dir, manifest, each) for each in (name, other)]
        if name == other:
            raise WaldoError(f"{name}: is one name already")
        first, second = (
            replace(read_named_object(index_dir / each.file.name), name=name) for each in records
        )
        kept = _joined(first, second, holds=first)
        return _with(_without(manifest, other), _store(index_dir, kept, number))

    _commit(index_dir, change)
    assert kept is not None
    return kept


def record_verdicts(
    index_dir: Path, name: str, verdicts: Sequence[Verdict], fingerprint: Fingerprint
) -> NamedObject:
    """Keep what a person said of photos: whether they show the object of a name. The last that was
    said of a photo holds. Raises as `name_object`, and WaldoError where the name is unknown.
    """
    kept: NamedObject | None = None

    def change(manifest: Manifest, number: int) -> tuple[NameRecord, ...]:
        nonlocal kept
        check_fingerprint(index_dir, manifest, fingerprint)
        known = _known(index_dir, manifest, name)
        before = read_named_object(index_dir / known.file.name)
        said = _last_of_each(before.views, *before.verdicts, *verdicts)
        kept = replace(before, name=name, verdicts=said)
        return _with(manifest, _store(index_dir, kept, number))

    _commit(index_dir, change)
    assert kept is not None
    return kept


def forget_object(index_dir: Path, name: str) -> None:
    """Delete a name and the features kept with it; photos stay. Raises as `name_object`, and
    WaldoError where the name is unknown.
    """

    def change(manifest: Manifest, _: int) -> tuple[NameRecord, ...]:
        _known(index_dir, manifest, name)
        return _without(manifest, name).names

    _commit(index_dir, change)


def check_name(name: str) -> None:
    """Raise WaldoError for a text that cannot be a name."""
    if name.startswith("@"):
        raise WaldoError(f"name {name!r}: leave out the @, which stands before a name in a search")
    is_path = name in (".", "..") or "/" in name or "@" in name
    is_blank = name != name.strip() or not name
    if is_path or is_blank or len(name) > _LONGEST or not name.isprintable():
        raise WaldoError(
            f"name {name!r}: must be 1 to {_LONGEST} printable characters, without / and @, and "
            "without blanks around it"
        )


def _commit(index_dir: Path, change: Callable[[Manifest, int], tuple[NameRecord, ...]]) -> None:
    """Commit the names that `change` makes of a manifest and of the next generation's number."""
    read_manifest(index_dir)  # raises where there is no index, before a lock file is made
    with writer_lock(index_dir), writing(index_dir):
        manifest = read_manifest(index_dir)
        number = manifest.generation + 1
        names = change(manifest, number)
        albums = manifest.albums if names else None
        changed = replace(manifest, generation=number, names=names, albums=albums)
        write_manifest(index_dir, changed)
        remove_leftovers(index_dir, changed)


def _joined(first: NamedObject, second: NamedObject, holds: NamedObject) -> NamedObject:
    """Two objects as one, by the name of the first, which comes first. holds: the one of them that
    is right where they contradict each other.
    """
    own, unlike = _places(holds.views), _places(holds.unlike)
    refused = {one.content_hash for one in holds.verdicts if not one.shows}
    views = tuple(
        view
        for place, view in _places((*first.views, *second.views)).items()
        if place in own or (place not in unlike and place[0] not in refused)
    )
    others = _places((*first.unlike, *second.unlike))
    return NamedObject(
        first.name,
        views,
        tuple(view for place, view in others.items() if place not in _places(views)),
        _last_of_each(views, *first.verdicts, *second.verdicts, *holds.verdicts),
    )


def _last_of_each(named_by: Sequence[NamedView], *verdicts: Verdict) -> tuple[Verdict, ...]:
    """The last verdict on each photo, but for those that the object is named by, which show it.

    They stay in the order in which photos came. Of the views, the first ones count: each is
    compared with all photos, and those that come late tell little that is new.
    """
    own = {view.maps.content_hash for view in named_by}
    last = {one.content_hash: one for one in verdicts if one.content_hash not in own}
    room = dict.fromkeys((True, False), MOST_SAID_VIEWS)
    kept = []
    for one in last.values():
        if one.view is not None:
            room[one.shows] -= 1
        kept.append(one if room[one.shows] >= 0 else replace(one, view=None))
    return tuple(kept)


def _places(views: Sequence[NamedView]) -> dict[tuple[str, bytes], NamedView]:
    """Views by their content and cells; of equal ones the first."""
    kept: dict[tuple[str, bytes], NamedView] = {}
    for view in views:
        kept.setdefault((view.maps.content_hash, view.cells.tobytes()), view)
    return kept


def _store(index_dir: Path, named: NamedObject, number: int) -> NameRecord:
    # Names may hold characters that a file's name must not.
    digest = hashlib.sha256(named.name.encode("utf-8", "surrogatepass")).hexdigest()[:16]
    name = f"names/{digest}-{number}.safetensors"
    (index_dir / "names").mkdir(exist_ok=True)
    sync_folder(index_dir)
    write_named_object(index_dir / name, named)
    return NameRecord(named.name, describe_file(index_dir, name, number, len(named.views)))


def _known(index_dir: Path, manifest: Manifest, name: str) -> NameRecord:
    known = manifest.named(name)
    if known is None:
        raise unknown_name(index_dir, [record.name for record in manifest.names], name)
    return known


def _with(manifest: Manifest, record: NameRecord) -> tuple[NameRecord, ...]:
    others = _without(manifest, record.name).names
    return tuple(sorted((*others, record), key=lambda one: one.name))


def _without(manifest: Manifest, name: str) -> Manifest:
    return replace(manifest, names=tuple(one for one in manifest.names if one.name != name))
