"""What Waldo and its worker processes tell each other: a line of JSON, then the bytes of an array.

Nothing is pickled, and nothing of it outlives the two processes: their pipe is all they share.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Message:
    """fields: what JSON can hold. array: of numbers, or None."""

    fields: Mapping[str, Any] = field(default_factory=dict)
    array: NDArray[Any] | None = None

    def write(self, stream: IO[bytes]) -> None:
        """Raises OSError where nobody reads the stream any more."""
        about: dict[str, Any] = {}
        if self.array is not None:
            about = {"dtype": self.array.dtype.str, "shape": self.array.shape}
        stream.write(json.dumps({"fields": dict(self.fields), **about}).encode() + b"\n")
        if self.array is not None:
            stream.write(_bytes_of(np.ascontiguousarray(self.array)))
        stream.flush()

    @classmethod
    def read(cls, stream: IO[bytes]) -> "Message | None":
        """The next message; None where the stream ends, be it within a message."""
        line = stream.readline()
        if not line.endswith(b"\n"):
            return None
        about = json.loads(line)
        if "shape" not in about:
            return cls(about["fields"])
        array = np.empty(about["shape"], about["dtype"])
        room = _bytes_of(array)
        if stream.readinto(room) < len(room):  # type: ignore[attr-defined]
            return None
        return cls(about["fields"], array)


def _bytes_of(array: NDArray[Any]) -> memoryview:
    return array.reshape(-1).view(np.uint8).data
