"""`waldo index`, `remove`, `compact` and `info` on the address of an index in a bucket."""

import json
import shutil
from pathlib import Path

import pytest

pytest.importorskip("obstore", reason="obstore is not installed")
pytest.importorskip("moto.server", reason="moto is not installed")

from tests.helpers.command_line import CommandLine
from tests.helpers.servers.object_server import ObjectServer

ROOT = Path(__file__).parents[3]
pytestmark = pytest.mark.usefixtures("small_maps")

URL = "s3://photos/one/index"
MANIFEST = "one/index/manifest.json"


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for path in sorted((ROOT / "data/demo/photos").glob("*.jpg"))[:5]:
        shutil.copy2(path, folder)
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 nothing")
    return folder


def test_from_the_terminal(
    server: ObjectServer, photos: Path, tmp_path: Path, waldo: CommandLine
) -> None:
    """Every command answers as it does on a folder."""
    local = tmp_path / "local.waldo"
    first, *_, last = sorted(photos.glob("[0-9]*.jpg"))
    ask = ("query", first, "--box", "10,10,90,90", "--json")
    for command in (
        ("index", photos, "--json"),
        ("info", "--json"),
        ask,
        ("remove", last, "--json"),
        ("compact", "--json"),
        ("info", "--json"),
        ask,
        ("verify", "--json"),
        ("index", photos),
    ):
        here, there = (waldo(*command, "--index", where) for where in (local, URL))
        assert (here.code, there.code) == (0, 0), (command, there)
        if command[-1] != "--json":
            assert there.out.startswith(f"5 photos in {URL}: 1 new, 1 failed in ")
            assert f"what failed and why: {URL}/failures.jsonl" in there.out
            continue
        expected, found = json.loads(here.out), json.loads(there.out)
        for values in (expected, found):
            for name in ("index_dir", "index", "seconds", "timing", "bytes_on_disk"):
                values.pop(name, None)
        assert found == expected, command
    assert str(tmp_path / "local") not in json.dumps(sorted(server.objects()))


def test_refusals(server: ObjectServer, photos: Path, waldo: CommandLine) -> None:
    server.s3.put_object(Bucket="photos", Key="one/letters/dear.txt", Body=b"dear")
    line = waldo.refusal("index", photos, "--index", "s3://photos/one/letters")
    assert "holds other objects and no index" in line
    assert "no index here" in waldo.refusal("compact", "--index", URL)
    assert "no index here" in waldo.refusal("remove", photos, "--index", URL)
    assert set(server.objects()) == {"one/letters/dear.txt"}


def test_another_writer_is_one_line(server: ObjectServer, photos: Path, waldo: CommandLine) -> None:
    theirs = b'{"of": "somebody else"}'

    def intrude(method: str, path: str) -> None:
        if method == "PUT" and path.endswith(MANIFEST):
            server.s3.put_object(Bucket="photos", Key=MANIFEST, Body=theirs)

    server.fault = intrude
    line = waldo.refusal("index", photos, "--index", URL)
    assert line.startswith(f"error: {URL}: another run has written this index meanwhile")
    assert server.objects()[MANIFEST] == theirs
