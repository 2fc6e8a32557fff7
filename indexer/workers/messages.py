"""What Waldo and its worker processes tell each other: a line of JSON, then the bytes of arrays.

Nothing is pickled, and nothing of it outlives the two processes: their pipe is all they share.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Message:
    """fields: what JSON can hold. arrays: of numbers."""

    fields: Mapping[str, Any] = field(default_factory=dict)
    arrays: Sequence[NDArray[Any]] = ()

    def write(self, stream: IO[bytes]) -> None:
        """Raises OSError where nobody reads the stream any more."""
        kinds = [(array.shape, array.dtype.str) for array in self.arrays]
        about = {"fields": dict(self.fields), "arrays": kinds}
        stream.write(json.dumps(about).encode() + b"\n")
        for array in self.arrays:
            stream.write(_bytes_of(np.ascontiguousarray(array)))
        stream.flush()

    @classmethod
    def read(cls, stream: IO[bytes]) -> "Message | None":
        """The next message; None where the stream ends, be it within a message."""
        line = stream.readline()
        if not line.endswith(b"\n"):
            return None
        about = json.loads(line)
        arrays = [np.empty(shape, dtype) for shape, dtype in about["arrays"]]
        for array in arrays:
            room = _bytes_of(array)
            if stream.readinto(room) < len(room):  # type: ignore[attr-defined]
                return None
        return cls(about["fields"], arrays)


def _bytes_of(array: NDArray[Any]) -> memoryview:
    return array.reshape(-1).view(np.uint8).data
