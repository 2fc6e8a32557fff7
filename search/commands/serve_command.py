"""`waldo serve`: the page, for people who would rather look than type."""

import re
import signal
import socket
import webbrowser
from importlib.util import find_spec
from typing import Annotated

import typer

from search.commands.terminal.index_places import index_to_read
from search.commands.terminal.options import EXPERTS, DeviceOption, IndexOption
from search.commands.terminal.printing import say


def serve(
    index: IndexOption,
    open_browser: Annotated[
        bool, typer.Option("--open", help="Open the page in the browser.")
    ] = False,
    port: Annotated[
        int, typer.Option(metavar="N", min=0, max=65535, help="The port. Default: any free one.")
    ] = 0,
    host: Annotated[
        str,
        typer.Option(
            metavar="ADDRESS",
            rich_help_panel=EXPERTS,
            help="The address to listen at. By any but 127.0.0.1 others can reach the page, who "
            "then need the link that is printed.",
        ),
    ] = "127.0.0.1",
    token: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT",
            rich_help_panel=EXPERTS,
            help="The secret in the link that others need. Default: a new one each time.",
        ),
    ] = None,
    device: DeviceOption = "auto",
) -> None:
    """Show the page: drop a photo, draw a box, see where it is. Ctrl-C ends it."""
    from features.errors import WaldoError

    if find_spec("starlette") is None or find_spec("uvicorn") is None:
        raise WaldoError("the page needs Starlette and uvicorn: pip install starlette uvicorn")
    from search.server.application import create_application, create_server
    from search.server.safety import LOOPBACK, new_secret
    from search.server.worker import SearchWorker

    if token is not None and re.fullmatch(r"[A-Za-z0-9_-]+", token) is None:
        raise WaldoError("--token: must be of letters A to Z, digits, _ and -, as it is in a link")
    listening = _listen(host, port)
    secret = None if host in LOOPBACK and token is None else token or new_secret()
    with index_to_read(index) as folder:
        worker = SearchWorker(folder, device)
        link = f"http://{_name_in_link(host, listening)}:{listening.getsockname()[1]}/"
        if secret is not None:
            link += f"?token={secret}"
        say(f"the page: {link}")
        if open_browser:
            webbrowser.open(link)
        _end_with_the_terminal()
        create_server(create_application(worker, secret)).run(sockets=[listening])


def _end_with_the_terminal() -> None:
    """Let the end of the terminal stop the server as SIGTERM does: in order, with its files."""
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as `nohup` wants it
        signal.signal(signal.SIGHUP, lambda *_: signal.raise_signal(signal.SIGTERM))


def _name_in_link(host: str, listening: socket.socket) -> str:
    """What a browser finds the server by: that of all of this machine's addresses is its name."""
    if listening.getsockname()[0] in ("0.0.0.0", "::"):
        return socket.gethostname()
    return f"[{host}]" if ":" in host else host


def _listen(host: str, port: int) -> socket.socket:
    """A socket that listens, so that a browser may connect before the server is up."""
    from features.errors import WaldoError

    if not host:
        raise WaldoError("--host: must be an address or a name; 0.0.0.0 is every address")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
        listening.listen()
    except OSError as error:
        listening.close()
        what = f"--host {host} --port {port}" if port else f"--host {host}"
        raise WaldoError(f"{what}: cannot listen there ({error.strerror or error})") from None
    return listening
