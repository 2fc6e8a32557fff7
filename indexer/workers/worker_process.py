"""A worker process, as the one who asks it sees it."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from features.errors import ModelError
from indexer.workers.messages import Message

_PROGRAM = "indexer.workers.worker_program"


class WorkerProcess:
    """A process that extracts photos on one device; it answers in the order of what it is asked.

    It ends by itself when this process ends, whatever ends it. It does not import this process's
    main module, so any script may start it.
    device: its name. ready: the answer to the task, once the model is read.
    """

    def __init__(self, task: Mapping[str, Any], threads: int) -> None:
        """Start the process, which does not wait for it.

        task: see `worker_program`. threads: how many compute at a time.
        """
        self.device = task["device"]
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", _PROGRAM],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={
                **os.environ,
                "OMP_NUM_THREADS": str(threads),  # of torch and of numpy
                "PYTHONPATH": os.pathsep.join(str(Path(p).absolute()) for p in sys.path),
            },
            # Ctrl-C is for this process, which commits what the worker has extracted.
            process_group=0,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._requests, self._answers = self._process.stdin, self._process.stdout
        self._asked: deque[Future[Message]] = deque()
        self._error: ModelError | None = None
        self._receiver = threading.Thread(target=self._receive, daemon=True)
        self._receiver.start()
        self.ready = self.ask(Message(task))

    @property
    def n_asked(self) -> int:
        """How many messages it has not answered yet."""
        return len(self._asked)

    def ask(self, message: Message) -> "Future[Message]":
        """Send a message; the future is its answer, or a ModelError where the worker failed.

        Only one thread may ask.
        """
        answer: Future[Message] = Future()
        self._asked.append(answer)
        # Where the worker is gone, the thread that receives tells why.
        with contextlib.suppress(OSError):
            message.write(self._requests)
        self._fail_what_is_asked()
        return answer

    def end(self) -> None:
        """End the process, at whatever it is."""
        self._process.kill()
        self._receiver.join()
        with contextlib.suppress(OSError):
            self._requests.close()
        self._answers.close()

    def _receive(self) -> None:
        error = None
        while error is None and (answer := Message.read(self._answers)) is not None:
            error = answer.fields.get("error")
            if error is None:
                self._asked.popleft().set_result(answer)
        status = self._process.wait()
        self._error = ModelError(error or self._why_it_ended(status))
        self._fail_what_is_asked()

    def _fail_what_is_asked(self) -> None:
        """Raise the error of a worker that is gone where its answers are waited for."""
        if self._error is not None:
            with contextlib.suppress(IndexError):  # both threads may come here
                while True:
                    self._asked.popleft().set_exception(self._error)

    def _why_it_ended(self, status: int) -> str:
        how = f"ended with exit code {status}"
        if status < 0:
            how = f"was killed ({signal.Signals(-status).name})"
        advice = ", perhaps because memory was full; use fewer" if status == -9 else ""
        return (
            f"a worker process on {self.device} {how}{advice}; what is done is kept: index the "
            "photos again to go on"
        )
