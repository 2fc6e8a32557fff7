"""What people are told when the hub does not give a model: a small hub on this machine refuses."""

import errno
import json
import re
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import huggingface_hub
import pytest
from huggingface_hub import constants

from features.diffusion.loading import load_model
from features.diffusion.presets import PRESETS
from features.errors import ModelError
from features.models import find_extractor
from features.vision.descriptors import ImageDescriptor
from search.segmentation.sam import Sam

COMMIT = "d" * 40
# Of every kind of model that is loaded by the hub: how, the repository, and what marks a folder.
FAMILIES: dict[str, tuple[Callable[[], object], str, str]] = {
    "UNet": (lambda: find_extractor("sd14", "cpu"), PRESETS["sd14"].source, "model_index.json"),
    "transformer": (
        lambda: find_extractor("flux-dev", "cpu"),
        PRESETS["flux-dev"].source,
        "model_index.json",
    ),
    "vision": (
        lambda: find_extractor("dinov3-small", "cpu"),
        "facebook/dinov3-vits16-pretrain-lvd1689m",
        "config.json",
    ),
    "descriptor": (
        lambda: ImageDescriptor.load("someone/some-model", "cpu"),
        "someone/some-model",
        "config.json",
    ),
    "sam": (lambda: Sam.load("someone/some-sam", "cpu"), "someone/some-sam", "config.json"),
}


class Hub:
    """A hub with one repository. files: their contents. refusal: status and error code of every
    answer, if it has any; refuses_files: only of answers about the content of files.
    """

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.refusal: tuple[int, str] | None = None
        self.refuses_files = False

    def answer(self, path: str) -> tuple[int, dict[str, str], bytes]:
        is_file = "/resolve/" in path
        if self.refusal and (is_file or not self.refuses_files):
            status, code = self.refusal
            return status, {"X-Error-Code": code, "X-Error-Message": code}, b"{}"
        if is_file:
            content = self.files[path.partition(f"/resolve/{COMMIT}/")[2]]
            return 200, {"X-Repo-Commit": COMMIT, "ETag": f'"{hash(content)}"'}, content
        if "/tree/" in path:
            entries = [
                {"type": "file", "path": name, "size": len(content), "oid": f"{hash(content)}"}
                for name, content in self.files.items()
            ]
            return 200, {}, json.dumps(entries).encode()
        siblings = [{"rfilename": name} for name in self.files]
        about = {"_id": "1", "id": "a/b", "sha": COMMIT, "siblings": siblings}
        return 200, {}, json.dumps(about).encode()


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """The hub that huggingface_hub asks, with an empty cache."""
    served = Hub()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, headers, body = served.answer(self.path.partition("?")[0])
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        do_HEAD = do_GET  # noqa: N815 -- the name that http.server calls

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    use_hub(f"http://127.0.0.1:{server.server_port}", tmp_path / "hub", monkeypatch)
    yield served
    server.shutdown()
    thread.join()
    server.server_close()


def use_hub(address: str, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(constants, "ENDPOINT", address)
    template = address + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)


def told(load: Callable[[], object]) -> str:
    """The one line of the error that a call raises."""
    with pytest.raises(ModelError) as raised:
        load()
    assert "\n" not in str(raised.value)
    return str(raised.value)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("refuses_files", [False, True])
def test_a_gated_repository(family: str, refuses_files: bool, hub: Hub) -> None:
    load, repository, marker = FAMILIES[family]
    # The hub itself lists the files of gated repositories to everyone, and refuses their content.
    hub.files, hub.refuses_files = {marker: b"{}"}, refuses_files
    hub.refusal = 403, "GatedRepo"
    message = told(load)
    assert f"{repository} is gated; accept its licence at https://huggingface.co/" in message
    assert "`hf auth login`" in message


@pytest.mark.parametrize("family", FAMILIES)
def test_no_such_repository(family: str, hub: Hub) -> None:
    load, repository, _ = FAMILIES[family]
    hub.refusal = 404, "RepoNotFound"
    assert f"the hub has no repository {repository}, or it is private" in told(load)


def test_no_hub_id(hub: Hub) -> None:
    assert "has no repository some one/mo--del" in told(lambda: load_model("some one/mo--del"))


def test_no_such_revision(hub: Hub) -> None:
    hub.refusal = 404, "RevisionNotFound"
    message = told(lambda: load_model("sd14", "cpu", revision="e" * 40))
    assert f"has no revision {'e' * 40} on the hub; if an index was made with it" in message


@pytest.mark.parametrize("family", FAMILIES)
def test_pickle_weights_only(family: str, hub: Hub) -> None:
    load, repository, marker = FAMILIES[family]
    hub.files = {marker: b"{}", "unet/model.bin": b"pickle", "pytorch_model.bin": b"pickle"}
    assert f"the weights of {repository} are pickle files" in told(load)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_repository_of_something_else(family: str, hub: Hub) -> None:
    load, repository, marker = FAMILIES[family]
    hub.files = {"data.csv": b"1,2"}
    assert re.search(rf"{repository} is not a model in .*\(no {marker} in it\); take", told(load))
    hub.files = {marker: b"{}"}
    assert "a model in " in told(load)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("offline", [False, True])
def test_no_network(
    family: str, offline: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load, repository, _ = FAMILIES[family]
    use_hub("http://127.0.0.1:9", tmp_path, monkeypatch)  # where nothing listens
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", offline)
    message = told(load)
    why = "HF_HUB_OFFLINE is set" if offline else "the hub cannot be reached"
    assert f"{repository} is not on this machine, and {why}; run" in message
    assert f"`hf download {repository}` where there is a network" in message


def test_half_a_download(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    load, repository, marker = FAMILIES["vision"]
    hub.files = {marker: b"{}", "model.safetensors": b"weights"}
    cached = Path(huggingface_hub.snapshot_download(repository))
    (cached / "model.safetensors").unlink()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    message = told(load)
    assert f"only a part of {repository} is on this machine; run `hf download" in message


def test_a_download_that_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object, **__: object) -> str:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", stop)
    load, repository, _ = FAMILIES["UNet"]
    message = told(load)
    assert f"the download of {repository} failed ([Errno 28] No space left on device)" in message
    assert "run the command again, which goes on where it stopped" in message
