"""The device that a model runs on, its precision there, and work in batches that fit its memory."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from features.errors import LittleMemoryWarning, ModelError

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

# The precision of a model's weights. On a GPU it computes in this precision, too. On a CPU it
# computes in float32, because most CPUs are slow at float16.
Precision = Literal["float32", "float16"]

# The share of a GPU's free memory that a batch may take, as far as one can tell beforehand.
_MEMORY_SHARE = 0.8

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def find_device(name: str) -> "torch.device":
    """The device of a name: "auto" (a GPU where there is one), or any torch device.

    Raises ModelError for a device that cannot compute here.
    """
    import torch

    try:
        device = torch.device(_pick_device() if name == "auto" else name)
        # A device can be there and yet not compute: it may be one that torch was not built for.
        torch.ones(1, device=device).add(1).item()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise ModelError(f"device {name}: not usable here ({reason})") from None
    return device


def _pick_device() -> str:
    import torch

    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def usual_precision(name: str) -> Precision:
    """The precision of a model on a device, as `find_device` takes it; it raises likewise.

    Half precision only where the hardware is made for it.
    """
    if name == "cpu":
        return "float32"  # torch need not be imported to know this
    return "float16" if find_device(name).type in ("cuda", "mps") else "float32"


def precision_of(fingerprint: Mapping[str, Any]) -> Precision:
    """The precision that a fingerprint tells."""
    return "float16" if fingerprint.get("precision") == "float16" else "float32"


def in_fingerprint(precision: Precision) -> dict[str, str]:
    """What a fingerprint says of a precision: nothing where it is float32."""
    return {} if precision == "float32" else {"precision": precision}


def computing_type(device: "torch.device", precision: Precision) -> "torch.dtype":
    """The type of number that a model of a precision computes in on a device."""
    import torch

    return torch.float32 if device.type == "cpu" else getattr(torch, precision)


def upload(array: "NDArray[Any]", device: "torch.device") -> "torch.Tensor":
    """An array on a device. A GPU gets a copy, for which nothing waits; on a CPU the memory is
    shared.
    """
    import torch

    tensor = torch.from_numpy(array)
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def download(tensor: "torch.Tensor") -> "Callable[[], NDArray[Any]]":
    """Begin to copy a tensor to the CPU; the function that is returned waits for the copy.

    A GPU copies into pinned memory when it has computed the tensor, and nothing waits until then.
    """
    import torch

    if tensor.device.type != "cuda":
        array: NDArray[Any] = tensor.cpu().numpy()
        return lambda: array
    copied = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    copied.copy_(tensor, non_blocking=True)
    # Who waits for it sleeps, and leaves the core to others.
    is_there = torch.cuda.Event(blocking=True)
    is_there.record(torch.cuda.current_stream(tensor.device))

    def wait() -> "NDArray[Any]":
        is_there.synchronize()
        return copied.numpy()

    return wait


def how_many_fit(device: "torch.device", work: Callable[[], object], most: int) -> int:
    """How many things fit into the free memory of a CUDA device at a time: 1, 2, 4 ... or `most`.

    work: on one of them, which shows the memory that each takes. It is done twice, because the
    first time may leave something behind. Raises what it raises.
    """
    import torch

    work()
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    work()
    each = max(1, torch.cuda.max_memory_allocated(device) - before)
    torch.cuda.empty_cache()
    free, _ = torch.cuda.mem_get_info(device)
    fitting = int(_MEMORY_SHARE * free / each)
    return most if fitting >= most else 2 ** max(0, fitting.bit_length() - 1)


class Batches:
    """Work on many things, in batches that fit into a device's memory.

    size: things per batch. Where the memory does not suffice, it is halved and stays so. things:
    what they are, as messages name them.
    """

    def __init__(self, size: int, things: str = "photos") -> None:
        self.size = size
        self._things = things

    def map(
        self, work: Callable[[Sequence[_Item]], _Result], items: Sequence[_Item]
    ) -> list[_Result]:
        """The results of `work` on one batch after another.

        Warns with LittleMemoryWarning when the size is halved. Raises ModelError where the memory
        does not suffice for a single one.
        """
        results: list[_Result] = []
        done = 0
        while done < len(items):
            batch = items[done : done + self.size]
            result = _unless_memory_is_full(work, batch)
            if result is not None:
                results.append(result)
                done += len(batch)
            elif self.size == 1:
                raise ModelError(
                    f"the device's memory does not suffice for one of the {self._things}; use "
                    "another device, such as cpu"
                )
            else:
                self.size //= 2
                warnings.warn(
                    f"the device's memory is full: going on with {self.size} {self._things} at "
                    "a time",
                    LittleMemoryWarning,
                    stacklevel=2,
                )
        return results


def _unless_memory_is_full(
    work: Callable[[Sequence[_Item]], _Result], batch: Sequence[_Item]
) -> _Result | None:
    """The result of `work`, or None where the device's memory did not suffice."""
    import torch

    try:
        return work(batch)
    except torch.cuda.OutOfMemoryError:
        pass
    # After the handler, because the error holds on to the tensors of the work.
    torch.cuda.empty_cache()
    return None
