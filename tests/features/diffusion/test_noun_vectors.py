"""The class vectors of the nouns on disk: read only if whole and of the same model."""

import os
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from features.diffusion.noun_vectors import noun_vectors
from features.diffusion.vocabulary import nouns
from features.errors import ModelError
from features.extractor import FeatureExtractor

MODEL: dict[str, str | int] = {"model": "m", "revision": "sha256:1", "block": "up", "timestep": 0}


class Encoder:
    """A text encoder that counts how often it is asked."""

    def __init__(self) -> None:
        self.asked = 0

    def __call__(self, names: list[str]) -> np.ndarray:
        assert names == nouns()
        self.asked += 1
        return np.random.default_rng(self.asked).normal(size=(5, 4)).astype(np.float32)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "waldo" / "nouns"


def test_they_are_computed_once_for_each_model_and_device(cache: Path) -> None:
    encoder = Encoder()
    first = noun_vectors(MODEL, "cpu", encoder)
    np.testing.assert_array_equal(
        noun_vectors(dict(reversed(MODEL.items())), "cpu", encoder), first
    )
    assert encoder.asked == 1
    others = [(MODEL | {"revision": "sha256:2"}, "cpu"), (MODEL | {"block": "down"}, "cpu")]
    for number, (model, device) in enumerate([*others, (MODEL, "cuda")], 2):
        found = noun_vectors(model, device, encoder)
        assert encoder.asked == number
        np.testing.assert_array_equal(noun_vectors(model, device, encoder), found)
    assert encoder.asked == len(list(cache.iterdir())) == 4


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "other", "wrong", "folder"])
def test_a_damaged_file_is_made_again(cache: Path, damage: str) -> None:
    encoder = Encoder()
    noun_vectors(MODEL, "cpu", encoder)
    [path] = cache.iterdir()
    content = bytearray(path.read_bytes())
    if damage == "cut":
        path.write_bytes(content[:-3])
    elif damage == "flipped":
        content[-5] ^= 1
        path.write_bytes(content)
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "other":
        save_file({"something": np.zeros(3)}, path)
    elif damage == "wrong":
        save_file({"vectors": np.zeros((2, 4), np.float32)}, path, {"sha256": "0"})
    else:
        path.unlink()
        path.mkdir()
    again = noun_vectors(MODEL, "cpu", encoder)
    assert encoder.asked == 2
    if damage != "folder":  # that nothing can be written to
        np.testing.assert_array_equal(noun_vectors(MODEL, "cpu", encoder), again)
        assert encoder.asked == 2
    assert list(cache.iterdir()) == [path]


def test_without_a_cache_folder_they_are_computed(cache: Path) -> None:
    encoder = Encoder()
    cache.parent.write_text("no folder")
    noun_vectors(MODEL, "cpu", encoder)
    noun_vectors(MODEL, "cpu", encoder)
    assert encoder.asked == 2


def test_random_weights_are_not_kept(cache: Path) -> None:
    encoder = Encoder()
    noun_vectors(MODEL | {"revision": "random:0"}, "cpu", encoder)
    assert not cache.exists()


def test_a_failure_leaves_nothing_behind(cache: Path) -> None:
    def broken(names: list[str]) -> np.ndarray:
        raise ModelError("its weights are broken")

    with pytest.raises(ModelError):
        noun_vectors(MODEL, "cpu", broken)
    assert not cache.exists()


def test_old_files_make_room(cache: Path) -> None:
    encoder = Encoder()
    for number in range(18):
        noun_vectors(MODEL | {"timestep": number}, "cpu", encoder)
        for path in cache.iterdir():  # as if written an hour before the next
            os.utime(path, ns=(0, path.stat().st_mtime_ns - 3600 * 10**9))
    assert len(list(cache.iterdir())) == 16
    noun_vectors(MODEL | {"timestep": 2}, "cpu", encoder)
    assert encoder.asked == 18
    noun_vectors(MODEL | {"timestep": 0}, "cpu", encoder)
    assert encoder.asked == 19


def test_the_next_start_reads_no_nouns(
    tiny: FeatureExtractor, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = FeatureExtractor(tiny.model, tiny.settings).rival_vectors
    monkeypatch.setattr(type(tiny.model), "class_vectors", None)
    again = FeatureExtractor(tiny.model, tiny.settings)
    np.testing.assert_array_equal(again.rival_vectors, first)
    changed = again.changed(timestep=100)
    with pytest.raises(TypeError):
        _ = changed.rival_vectors
