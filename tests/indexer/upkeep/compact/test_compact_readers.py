"""Whoever reads an index while it is compacted keeps what was opened."""

import subprocess
import sys
from pathlib import Path

import pytest

from indexer.errors import (
    IndexDamagedError,
    IndexMissingError,
)
from indexer.reader import IndexReader
from indexer.store.manifest import read_manifest
from indexer.upkeep.check import describe, verify
from indexer.upkeep.compact import compact
from tests.helpers.stores import files_of, ids_by_recall, rows, run

ROOT = Path(__file__).parents[4]


class TestReaders:
    def leftovers(self, index: Path) -> set[str]:
        named = {file.name for file in read_manifest(index).files()}
        kinds = ("*.parquet", "*.faiss", "*.safetensors")
        paths = {path for kind in kinds for path in index.rglob(kind)}
        return {str(path.relative_to(index)) for path in paths} - named

    def test_a_reader_keeps_its_snapshot(self, index: Path, photos: Path) -> None:
        before, old = rows(index), read_manifest(index)
        with IndexReader.open(index) as reader:
            report = compact(index)
            assert report.in_use
            assert self.leftovers(index) > {old.shards[0].name, old.photos[0].name}
            described = describe(index)
            assert described["bytes_on_disk"] > described["bytes"]
            # Nothing was read before: the recall index and all maps still come from old files.
            batch = reader.read_maps(reader.ids)
            assert batch.damaged == []
            assert ids_by_recall(reader) == reader.ids.tolist()
            paths = [str(record.path) for record in reader.photos(reader.ids)]
            assert paths == [path for path, _ in sorted(before.items(), key=lambda r: r[1][0])]
            run(photos, index)
            assert self.leftovers(index)  # the next writer, too, leaves them
        assert self.leftovers(index)
        run(photos, index)
        assert self.leftovers(index) == set()
        assert rows(index) == before
        assert verify(index) == []

    def test_the_last_of_several_readers_counts(self, index: Path, photos: Path) -> None:
        first, second = IndexReader.open(index), IndexReader.open(index)
        compact(index)
        first.close()
        run(photos, index)
        assert self.leftovers(index)
        second.close()
        run(photos, index)
        assert self.leftovers(index) == set()

    @pytest.mark.parametrize("end", ["closed", "killed"])
    def test_a_reader_in_another_process(self, index: Path, photos: Path, end: str) -> None:
        code = (
            "import sys; from pathlib import Path; from indexer.reader import IndexReader\n"
            "reader = IndexReader.open(Path(sys.argv[1]))\n"
            "print('open', flush=True); sys.stdin.readline()\n"
            "batch = reader.read_maps(reader.ids)\n"
            "print(len(batch.ids), len(batch.damaged), len(reader.recall), flush=True)\n"
            "sys.stdin.readline(); reader.close(); print('closed', flush=True)\n"
            "sys.stdin.readline()\n"
        )
        arguments = [sys.executable, "-c", code, str(index)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        with subprocess.Popen(arguments, cwd=ROOT, **pipes) as process:
            assert process.stdout is not None
            assert process.stdin is not None
            assert process.stdout.readline() == "open\n"
            assert compact(index).in_use
            process.stdin.write("\n")
            process.stdin.flush()
            assert process.stdout.readline() == "13 0 13\n"
            run(photos, index)
            assert self.leftovers(index)
            if end == "killed":
                process.kill()
                process.wait()
            else:
                process.stdin.write("\n")
                process.stdin.flush()
                assert process.stdout.readline() == "closed\n"
            run(photos, index)
            assert self.leftovers(index) == set()

    def test_a_failed_opening_holds_nothing(self, index: Path) -> None:
        path = index / read_manifest(index).photos[0].name
        held = path.read_bytes()
        path.write_bytes(b"no parquet")
        with pytest.raises(IndexDamagedError) as caught:
            IndexReader.open(index)
        path.write_bytes(held)
        assert not compact(index).in_use
        assert caught.value is not None  # and with it the frames of the failed call

    def test_a_missing_lock_file_is_made_anew(self, index: Path) -> None:
        (index / ".readers").unlink()
        with IndexReader.open(index):
            assert compact(index).in_use

    def test_a_lock_that_cannot_be_had_does_not_matter(self, index: Path) -> None:
        (index / ".readers").unlink()
        (index / ".readers").symlink_to("nowhere/at/all")
        before = files_of(index)
        with IndexReader.open(index) as reader:
            assert len(reader.read_maps(reader.ids).ids) == 13
        assert files_of(index) == before

    def test_no_file_is_made_where_there_is_no_index(self, tmp_path: Path) -> None:
        for function in (IndexReader.open, describe, verify):
            with pytest.raises(IndexMissingError):
                function(tmp_path)
        assert list(tmp_path.iterdir()) == []
