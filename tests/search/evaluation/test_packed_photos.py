"""Photos in tars: unpacked once and whole, never outside their folder."""

import io
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from features.errors import WaldoError
from indexer.store.locks import writer_lock
from search.evaluation.benchmarks import read_benchmark
from search.evaluation.benchmarks.published.packed_photos import unpack_photos
from tests.helpers.pictures import save_photo
from tests.search.evaluation.test_published_searches import save_ilias, save_mini_ilias


def save_tar(path: Path, names: list[str]) -> Path:
    """A shard as WebDataset writes it: a photo, and its labels beside it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for seed, name in enumerate(names):
            tar.add(save_photo(path.with_suffix(".jpg"), 32, 24, seed), name)
            labels = tarfile.TarInfo(f"{name.removesuffix('.jpg')}.json")
            labels.size = 2
            tar.addfile(labels, io.BytesIO(b"{}"))
    path.with_suffix(".jpg").unlink()
    return path


def names(photos: list[Path], work: Path) -> list[str]:
    return ["/".join(photo.relative_to(work).parts[1:]) for photo in photos]


def test_photos_are_unpacked_and_labels_are_not(tmp_path: Path) -> None:
    tars = [
        save_tar(tmp_path / "0.tar", ["a.jpg", "deep/b.x.jpg"]),
        save_tar(tmp_path / "1.tar", ["a.jpg"]),
    ]
    steps: list[tuple[str, int, int]] = []
    work = tmp_path / "work"
    photos = unpack_photos(tars, work, on_step=lambda *step: steps.append(step))
    assert names(photos, work) == ["a.jpg", "deep/b.x.jpg", "a.jpg"]
    assert len(set(photos)) == 3
    assert steps == [("unpacking 0.tar", 0, 2), ("unpacking 1.tar", 1, 2)]
    assert names(unpack_photos(tars, work, {"b"}), work) == ["deep/b.x.jpg"]


def test_a_tar_is_unpacked_once_until_it_changes(tmp_path: Path) -> None:
    tar, work = save_tar(tmp_path / "0.tar", ["a.jpg"]), tmp_path / "work"
    [photo] = unpack_photos([tar], work)
    photo.write_text("kept")
    assert unpack_photos([tar], work) == [photo]
    assert photo.read_text() == "kept"
    save_tar(tar, ["a.jpg", "b.jpg"])
    assert names(unpack_photos([tar], work), work) == ["a.jpg", "b.jpg"]


def test_what_a_killed_run_left_is_not_taken_for_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tar, work = save_tar(tmp_path / "0.tar", ["a.jpg", "b.jpg"]), tmp_path / "work"
    extract = tarfile.TarFile.extract

    class Killed(BaseException):
        """As a kill: nothing that follows the first photo happens."""

    def die(packed: tarfile.TarFile, *given: object, **named: object) -> None:
        extract(packed, *given, **named)  # type: ignore[arg-type]
        raise Killed

    monkeypatch.setattr(tarfile.TarFile, "extract", die)
    with pytest.raises(Killed):
        unpack_photos([tar], work)
    assert len(list(work.rglob("*.jpg"))) == 1
    (next(work.glob("*.tmp")) / "stray.jpg").write_bytes(b"of the killed run")
    monkeypatch.setattr(tarfile.TarFile, "extract", extract)
    assert names(unpack_photos([tar], work), work) == ["a.jpg", "b.jpg"]
    assert list(work.glob("*.tmp")) == []


def cut_in_a_photo(content: bytes) -> bytes:
    return content[:700]


def cut_between_photos(content: bytes) -> bytes:
    """The first photo is whole, and the header of its labels follows next."""
    size = int(content[124:135], 8)
    return content[: 512 + -(-size // 512) * 512]


def spoilt_header(content: bytes) -> bytes:
    whole = len(cut_between_photos(content))
    return content[:whole] + b"?" * 512 + content[whole + 512 :]


@pytest.mark.parametrize(
    "spoil",
    [
        cut_in_a_photo,
        cut_between_photos,
        spoilt_header,
        lambda content: b"",
        lambda content: b"no tar" * 200,
    ],
)
def test_a_broken_tar_is_named(tmp_path: Path, spoil: Callable[[bytes], bytes]) -> None:
    tar = save_tar(tmp_path / "0.tar", ["a.jpg", "b.jpg"])
    tar.write_bytes(spoil(tar.read_bytes()))
    for _ in range(2):  # what was unpacked of it is not taken for whole later
        with pytest.raises(WaldoError, match=r"0\.tar: is broken, or no tar") as raised:
            unpack_photos([tar], tmp_path / "work")
        assert "\n" not in str(raised.value)


def test_nothing_is_written_outside_the_folder(tmp_path: Path) -> None:
    tar = save_tar(tmp_path / "0.tar", ["../../../outside.jpg"])
    with pytest.raises(WaldoError, match=r"0\.tar: .*outside the destination"):
        unpack_photos([tar], tmp_path / "work")
    assert list(tmp_path.rglob("outside.jpg")) == []


def test_two_processes_do_not_unpack_into_one_folder(tmp_path: Path) -> None:
    tar, work = save_tar(tmp_path / "0.tar", ["a.jpg"]), tmp_path / "work"
    work.mkdir()
    with writer_lock(work), pytest.raises(WaldoError, match="another process is unpacking"):
        unpack_photos([tar], work)


def test_ilias_has_the_distractors_of_its_tars(tmp_path: Path) -> None:
    root, work = save_mini_ilias(tmp_path / "ilias"), tmp_path / "work"
    save_tar(root / "yfcc100m/yfcc100m-000.tar", ["77.jpg", "78.jpg"])
    save_tar(root / "distractors/mini.tar", ["79.jpg"])
    whole = read_benchmark("ilias", root, work)
    assert whole.convention == "6 distractors"
    mini = read_benchmark("mini_ilias", root, work)
    assert sorted(photo.name for photo in mini.gallery[2:]) == ["1.jpg", "77.jpg"]
    assert [query.relevant.tolist() for query in mini.queries] == [[0], [1]]


def test_tars_without_a_work_folder_are_refused(tmp_path: Path) -> None:
    root = save_ilias(tmp_path)
    save_tar(root / "yfcc100m/0.tar", ["77.jpg"])
    with pytest.raises(WaldoError, match=r"0\.tar: is packed"):
        read_benchmark("ilias", root)
