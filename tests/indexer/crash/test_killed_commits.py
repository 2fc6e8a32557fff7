"""Naming, what people say of photos and objects, and links: killed at every step, nothing that was
said is lost.
"""

from functools import partial
from pathlib import Path

import numpy as np
import pytest

import search.recurring.linking as linking
from indexer.named_objects import NamedObject
from indexer.reader import IndexReader
from indexer.upkeep.check import verify
from indexer.upkeep.compact import compact
from search.albums.album import read_albums
from search.albums.filling import fill_albums
from search.albums.verdicts import Said, say_of_photos
from search.recurring.corrections import correct_objects
from search.recurring.linking import link_photos, stored_links
from tests.helpers.killed import killed_at_every_step, undisturbed
from tests.helpers.linked_photos import link_regions, objects_of
from tests.helpers.names import keep_name, keep_two_names, named_view
from tests.helpers.stores import (
    assert_nothing_left_over,
    assert_usable,
    make_photos,
    run,
)


def name(photos: Path, index: Path) -> None:
    keep_name(index, NamedObject("Rex", (named_view(photos / "photo-000.png"),)))


def say(index: Path) -> None:
    """Confirm and refuse at once."""
    say_of_photos(index, "Max", [Said(4, True), Said(6, False)])
    fill_albums(index)


def correct(index: Path) -> None:
    correct_objects(index, [[1, 2]], {1: [0]})


def link(index: Path) -> None:
    """Compare photos as `waldo objects` does, with a commit after every two of them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(linking, "_COMMIT_SECONDS", 0.0)
        patch.setattr(linking, "_PHOTOS", 2)
        link_photos(index)


def test_naming_killed_at_every_step(photos: Path, tmp_path: Path) -> None:
    """No name is lost, and none is half changed."""
    before = tmp_path / "before"
    run(photos, before)
    keep_name(before, NamedObject("Max", (named_view(photos / "photo-001.png"),)))
    keep_name(before, NamedObject("Rex", (named_view(photos / "photo-002.png"),)))
    left = killed_at_every_step(partial(name, photos), before, tmp_path / "left")
    assert len(left) > 5
    counts = set()
    for index in left:
        assert_usable(index)
        with IndexReader.open(index) as reader:
            names = reader.names
            assert names["Max"] == 1
            assert len(reader.named("Rex").views) == names["Rex"]
            counts.add(names["Rex"])
        name(photos, index)
        assert verify(index) == []
        assert_nothing_left_over(index)
    assert counts == {1, 2}


def test_killed_at_every_step_of_what_is_said_of_photos(photos: Path, tmp_path: Path) -> None:
    """What was said before is always there; what is said now is there whole or not at all, and
    albums follow.
    """
    before = tmp_path / "before"
    run(photos, before)
    keep_two_names(before, photos)
    whole = undisturbed(say, before, tmp_path / "whole")
    left = killed_at_every_step(say, before, tmp_path / "left")
    assert len(left) > 10
    states = set()
    for index in left:
        assert_usable(index)
        with IndexReader.open(index) as reader:
            said = {one.photo.name: one.shows for one in reader.named("Max").verdicts}
            assert said.pop("photo-003.png") is True
            assert list(said.values()) in ([], [True, False])
            albums = read_albums(reader)
            states.add((len(said), albums["Max"].waiting == 0))
            # An album that does not follow yet shows what was said.
            assert sum(photo.said is True for photo in albums["Max"].shown) == 2 + len(said) // 2
            assert albums["Rex"].waiting == 0
        say(index)
        assert verify(index) == []
        with IndexReader.open(index) as reader, IndexReader.open(whole) as expected:
            assert read_albums(reader) == read_albums(expected)
        assert_nothing_left_over(index)
    assert states == {(0, True), (2, False), (2, True)}


def test_killed_at_every_step_of_correcting_objects(photos: Path, tmp_path: Path) -> None:
    """What was said before is always there; what is said now is there whole or not at all."""
    before = tmp_path / "before"
    run(photos, before)
    link_regions(before, ((0, 1), (2, 3), (4, 5)))
    correct_objects(before, taken_out={3: [6]})  # what is said first: no photo 5 with photo 4
    unsaid, said = {frozenset({0, 1}), frozenset({2, 3})}, {frozenset({1, 2, 3})}
    assert objects_of(before) == unsaid
    left = killed_at_every_step(correct, before, tmp_path / "left")
    assert len(left) > 5
    states = []
    for index in left:
        assert_usable(index)
        states.append(objects_of(index))
        if states[-1] == unsaid:
            correct(index)
        assert objects_of(index) == said
        # The files of a writer that was killed go with the next one.
        compact(index)
        assert verify(index) == []
        assert_nothing_left_over(index)
    assert unsaid in states
    assert said in states


def test_linking_killed_at_every_step(photos: Path, tmp_path: Path) -> None:
    """What a person said is always there, and the run goes on to the same links."""
    before = tmp_path / "before"
    run(photos, before)
    link_regions(before, ((0, 1), (2, 3)))
    correct_objects(before, [[1, 2]])
    make_photos(photos, 2, first=20)
    run(photos, before)
    whole = undisturbed(link, before, tmp_path / "whole")
    left = killed_at_every_step(link, before, tmp_path / "left")
    assert len(left) > 10
    for index in left:
        assert_usable(index)
        assert frozenset({0, 1, 2, 3}) in objects_of(index)
        link(index)
        with IndexReader.open(index) as reader, IndexReader.open(whole) as expected:
            links, wanted = stored_links(reader), stored_links(expected)
            assert links.compared.all()
            np.testing.assert_array_equal(links.contents, wanted.contents)
            np.testing.assert_array_equal(links.pairs, wanted.pairs)
        assert objects_of(index) == objects_of(whole)
        # While linking the index is being read, so the next writer deletes replaced files.
        compact(index)
        assert verify(index) == []
        assert_nothing_left_over(index)
