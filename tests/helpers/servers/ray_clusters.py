"""A Ray cluster of several nodes on this machine, and drivers that use it."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[3]
# Seconds in which whatever is waited for must happen.
PATIENCE = 120.0
_STORE_BYTES = 80_000_000
# A node counts as lost when five looks in a row find nobody there: in seconds, not in a quarter of
# a minute.
_LOOKING = {"health_check_period_ms": 1000}

# Nothing is sent anywhere, and nothing written into the user's home folder.
_QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled"}


class LocalCluster:
    """Nodes of one core each; the first one is the head, on which no worker fits. Each has a user's
    cache of its own, as a machine has.

    caches: where these are.
    """

    def __init__(self, nodes: int, caches: Path) -> None:
        from ray.cluster_utils import Cluster

        self.caches = caches
        self._cluster = Cluster()
        self._add(0, include_dashboard=False, _system_config=_LOOKING)
        self._nodes = [self._add(1) for _ in range(nodes)]

    @property
    def address(self) -> str:
        """HOST:PORT."""
        return str(self._cluster.address)

    def add_node(self) -> None:
        self._nodes.append(self._add(1))

    def lose_node(self) -> None:
        """One of the nodes is gone, as if its power failed."""
        self._cluster.remove_node(self._nodes.pop(0), allow_graceful=False)

    def take_node_away(self) -> None:
        """One of the nodes leaves, and all know it."""
        self._cluster.remove_node(self._nodes.pop(0))
        self._cluster.wait_for_nodes()

    def shutdown(self) -> None:
        self._cluster.shutdown()

    def _add(self, cores: int, **options: Any) -> Any:
        self.caches.mkdir(exist_ok=True)
        os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp(dir=self.caches)
        return self._cluster.add_node(
            num_cpus=cores,
            num_gpus=0,
            object_store_memory=_STORE_BYTES,
            include_log_monitor=False,
            **options,
        )


@contextmanager
def local_cluster(nodes: int, home: Path) -> Iterator[LocalCluster]:
    """A cluster until the context ends. home: what Ray takes for the user's home folder."""
    before = dict(os.environ)
    os.environ.update(_QUIET, HOME=str(home), PYTHONPATH=str(ROOT), OMP_NUM_THREADS="1")
    try:
        cluster = LocalCluster(nodes, home / "caches")
        try:
            yield cluster
        finally:
            cluster.shutdown()
    finally:
        os.environ.clear()
        os.environ.update(before)


class Driver:
    """`waldo index ... --ray`, in a process of its own.

    home: a folder for its log, and for a user's cache, as of a machine of its own.
    """

    def __init__(
        self, photos: Path | str, index: Path | str, address: str, home: Path, *more: str
    ) -> None:
        arguments = [photos, "--index", index, "--ray", address, "--batch-size", "4", "--json"]
        home.mkdir(parents=True, exist_ok=True)
        self._log = home / f"{time.monotonic_ns()}.log"
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "search.commands.app", "index", *map(str, arguments), *more],
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env={**os.environ, "XDG_CACHE_HOME": str(home)},
            )

    @property
    def said(self) -> str:
        """What it has said to people."""
        return self._log.read_text()

    def is_running(self) -> bool:
        return self._process.poll() is None

    def signal(self, number: int) -> None:
        self._process.send_signal(number)

    def code(self) -> int:
        """Its exit code, once it has ended."""
        self._process.communicate(timeout=PATIENCE)
        return self._process.returncode

    def report(self) -> dict[str, Any]:
        """What it printed, once it has ended well."""
        out, _ = self._process.communicate(timeout=PATIENCE)
        assert self._process.returncode == 0, self.said
        assert out.startswith("{"), out  # nothing but the report
        found: dict[str, Any] = json.loads(out)
        return found

    def end(self) -> None:
        """Kill it if it still runs."""
        if self.is_running():
            self._process.kill()
        self._process.communicate()


def wait_until(holds: Callable[[], Any], what: str) -> Any:
    """What `holds` returns as soon as that is true."""
    waited_until = time.monotonic() + PATIENCE
    while time.monotonic() < waited_until:
        if found := holds():
            return found
        time.sleep(0.1)
    raise AssertionError(f"waited {PATIENCE:.0f} s: {what}")


def writers(index: Path, but: int) -> dict[int, int]:
    """The processes that have taken parts of a fleet, by the parts' numbers. but: no process of
    this number.
    """
    found = {}
    for lock in index.glob("parts/*/.lock"):
        process = lock.read_text()
        if process and int(process) != but:
            found[int(lock.parent.name)] = int(process)
    return found


def kill(process: int) -> None:
    os.kill(process, signal.SIGKILL)
