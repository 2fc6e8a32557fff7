"""Kernels: ways to find, for each wanted vector, the most similar cell of each photo on a CPU.

They differ in the matrix product. Which is fastest depends on the CPU, on the numbers per token and
on how many vectors are wanted, so `prepare_kernel` chooses by a measurement. The environment
variable WALDO_KERNEL names the kernel to use instead, for benchmarks and tests.
"""

import math
import os
import threading
import time
import warnings
from abc import ABC, abstractmethod
from functools import cache
from typing import TYPE_CHECKING, ClassVar

from features.errors import WaldoError

if TYPE_CHECKING:
    import torch

FORCED_BY = "WALDO_KERNEL"

# A cell that a kernel chooses may be worse than the best by this much in cosine, and no more.
LARGEST_LOSS = 0.02

# A measurement makes about this many products: enough to tell kernels apart, and soon done.
_MEASURED_PRODUCTS = 2**17
_REPETITIONS = 3
# A kernel displaces an earlier one only if it takes less than this share of its time. So the choice
# does not change from run to run where two are about as fast.
_CLEARLY_FASTER = 0.85
# A kernel that takes this many times as long as another is not measured further.
_HOPELESS = 4
_MEASURING = threading.Lock()

# The most cells in a group of `_best_cells`.
_GROUP = 8


class Kernel(ABC):
    """Compares cells with the wanted vectors that it was prepared for.

    loss: how much worse than the best a chosen cell may be, in cosine.
    """

    name: ClassVar[str]
    loss: float

    def __init__(self, wanted: "torch.Tensor") -> None:
        """wanted: (m, k) float32 on the CPU, of length 1 or 0."""
        import torch

        # Allocating these for each block of photos would take longer than the products.
        self._numbers = torch.empty(0, wanted.shape[1])
        self._products = torch.empty(0, len(wanted))

    @classmethod
    def is_offered(cls) -> bool:
        """Whether this torch has the product."""
        return True

    @classmethod
    def takes(cls, levels: "torch.dtype") -> bool:
        """Whether it compares levels of this type: int8 from -63 to 63, int16 from -255 to 255, or
        any float32."""
        return True

    @abstractmethod
    def multiply(self, levels: "torch.Tensor", numbers: "torch.Tensor") -> "torch.Tensor":
        """The products of levels, (rows, k), with each wanted vector times a positive number of its
        own: (rows, m) float32, in memory that may be written to.

        numbers: the levels in float32.
        """

    def best(self, levels: "torch.Tensor") -> "torch.Tensor":
        """The cell of each photo that is most similar to each vector, (n, m) int64.

        levels: (n, cells, k). Which of equal cells wins depends on their places among the cells.
        """
        rows = levels.flatten(0, 1)
        numbers = rows
        if not rows.is_floating_point():
            numbers = self._numbers.resize_(rows.shape).copy_(rows)
        products = self.multiply(rows, numbers)
        products *= lengths(numbers).reciprocal_()
        return _best_cells(products.unflatten(0, levels.shape[:2]))


class Float32(Kernel):
    """The kernel that is always there, and exact."""

    name = "float32"

    def __init__(self, wanted: "torch.Tensor") -> None:
        super().__init__(wanted)
        self._wanted = wanted.T
        self.loss = 0.0

    def multiply(self, levels: "torch.Tensor", numbers: "torch.Tensor") -> "torch.Tensor":
        import torch

        products = self._products.resize_(len(levels), self._wanted.shape[1])
        return torch.mm(numbers, self._wanted, out=products)


class BFloat16(Kernel):
    """Products in bfloat16, in which all levels of the codec are exact."""

    name = "bfloat16"

    def __init__(self, wanted: "torch.Tensor") -> None:
        import torch

        super().__init__(wanted)
        self._wanted = wanted.bfloat16().T
        # A product is rounded to eight bits.
        self.loss = _loss(wanted, self._wanted.T.float()) + 2 * 2**-8
        self._rounded = torch.empty((0, len(wanted)), dtype=torch.bfloat16)

    @classmethod
    def takes(cls, levels: "torch.dtype") -> bool:
        return not levels.is_floating_point

    def multiply(self, levels: "torch.Tensor", numbers: "torch.Tensor") -> "torch.Tensor":
        import torch

        rounded = self._rounded.resize_(len(levels), self._wanted.shape[1])
        torch.mm(levels.bfloat16(), self._wanted, out=rounded)
        return self._products.resize_(rounded.shape).copy_(rounded)


class Fbgemm(Kernel):
    """Products of FBGEMM: levels in 7 bits with vectors in int8, given as float32.

    Levels are at most 63, so that they are exact in 7 bits; and the sum of two products, which
    CPUs without VNNI keep in 16 bits, cannot overflow.
    """

    name = "fbgemm"

    def __init__(self, wanted: "torch.Tensor") -> None:
        import torch

        super().__init__(wanted)
        steps, rounded = _in_int8(wanted)
        with warnings.catch_warnings():
            # A later torch may have no quantized tensors; `is_offered` sees to that.
            warnings.filterwarnings("ignore", "torch.quantize_per_tensor", UserWarning)
            weights = torch._make_per_channel_quantized_tensor(
                rounded, steps.double(), torch.zeros(len(wanted), dtype=torch.int64), 0
            )
        self._packed = torch.ops.quantized.linear_prepack(weights, None)
        self.loss = _loss(wanted, rounded * steps[:, None])

    @classmethod
    def is_offered(cls) -> bool:
        import torch

        return (
            "fbgemm" in torch.backends.quantized.supported_engines
            and hasattr(torch, "_make_per_channel_quantized_tensor")
            and hasattr(torch.ops.quantized, "linear_with_input_q_dq_qweight_dq_output_fp32")
        )

    @classmethod
    def takes(cls, levels: "torch.dtype") -> bool:
        return levels.itemsize == 1

    def multiply(self, levels: "torch.Tensor", numbers: "torch.Tensor") -> "torch.Tensor":
        import torch

        multiply = torch.ops.quantized.linear_with_input_q_dq_qweight_dq_output_fp32
        products: torch.Tensor = multiply(numbers, 1.0, 64, self._packed)
        return products


class Int8(Kernel):
    """Products of int8 with int8, the fastest where the CPU has instructions for them."""

    name = "int8"

    def __init__(self, wanted: "torch.Tensor") -> None:
        import torch

        super().__init__(wanted)
        steps, rounded = _in_int8(wanted)
        # A copy also where k or m is 1: the product is wrong unless the strides are those of rows.
        self._wanted = rounded.T.clone(memory_format=torch.contiguous_format)
        self._whole = torch.empty((0, len(wanted)), dtype=torch.int32)
        self.loss = _loss(wanted, rounded * steps[:, None])

    @classmethod
    def is_offered(cls) -> bool:
        import torch

        return hasattr(torch, "_int_mm")

    @classmethod
    def takes(cls, levels: "torch.dtype") -> bool:
        return levels.itemsize == 1

    def multiply(self, levels: "torch.Tensor", numbers: "torch.Tensor") -> "torch.Tensor":
        import torch

        whole = self._whole.resize_(len(levels), self._wanted.shape[1])
        torch._int_mm(levels, self._wanted, out=whole)
        return whole.view(torch.float32).copy_(whole)


# By name, in order of preference.
KERNELS: dict[str, type[Kernel]] = {
    kernel.name: kernel for kernel in (Float32, BFloat16, Fbgemm, Int8)
}


def offered_kernels() -> list[type[Kernel]]:
    """The kernels that this torch has, in order of preference."""
    return [kernel for kernel in KERNELS.values() if kernel.is_offered()]


def prepare_kernel(wanted: "torch.Tensor", levels: "torch.dtype") -> Kernel:
    """The kernel that compares levels of a type with wanted vectors fastest, prepared for them.

    wanted: (m, k) float32 on the CPU, of length 1 or 0. The kernel loses at most LARGEST_LOSS.
    Raises WaldoError if WALDO_KERNEL names a kernel that is unknown or not available.
    """
    kernel = KERNELS[choose_kernel(levels, *wanted.shape)](wanted)
    # A vector with few large numbers is too coarse in 8 bits. The codec spreads vectors evenly, so
    # there is hardly ever one.
    return kernel if kernel.loss <= LARGEST_LOSS else Float32(wanted)


def choose_kernel(levels: "torch.dtype", count: int, width: int) -> str:
    """The name of the kernel for levels of a type, m = `count` and k = `width`: the forced one
    where it takes such levels, or else the fastest.

    Raises WaldoError if WALDO_KERNEL names a kernel that is unknown or not available.
    """
    forced = forced_kernel()
    if forced is not None and KERNELS[forced].takes(levels):
        return forced
    able = [kernel.name for kernel in offered_kernels() if kernel.takes(levels)]
    if len(able) == 1:
        return able[0]
    return fastest(measure_kernels(levels, *shape_class(count, width)))


def forced_kernel() -> str | None:
    """The kernel that WALDO_KERNEL names; None where it is not set or empty.

    Raises WaldoError if this kernel is unknown or not available.
    """
    name = os.environ.get(FORCED_BY)
    if not name:
        return None
    names = [kernel.name for kernel in offered_kernels()]
    if name not in names:
        what = "is not available here" if name in KERNELS else "is no kernel"
        raise WaldoError(f"{FORCED_BY}={name}: {name} {what}; one of {', '.join(names)}")
    return name


def shape_class(count: int, width: int) -> tuple[int, int]:
    """The next powers of two of a number of wanted vectors and of their numbers, within limits."""
    count, width = (1 << (min(max(size, 16), 1024) - 1).bit_length() for size in (count, width))
    return count, width


def measure_kernels(levels: "torch.dtype", count: int, width: int) -> dict[str, float]:
    """Seconds that each kernel takes to compare 1,000 cells of made-up levels, in order of
    preference.

    levels: their type. count: m, of wanted vectors. width: k, numbers of each. It is measured once
    per process, in tens of milliseconds of one thread's own time, which other programs do not
    disturb.
    """
    import torch

    # Threads that measured at the same time might choose differently.
    with _MEASURING:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            return _measure(levels, count, width)
        finally:
            torch.set_num_threads(threads)


@cache
def _measure(levels: "torch.dtype", count: int, width: int) -> dict[str, float]:
    """See `measure_kernels`."""
    import torch

    source = torch.Generator().manual_seed(0)
    shape = 2, min(2048, _MEASURED_PRODUCTS // (2 * count)), width
    cells = torch.randint(-8, 8, shape, generator=source).to(levels)
    wanted = torch.nn.functional.normalize(torch.randn(count, width, generator=source), dim=1)
    found: dict[str, float] = {}
    for kernel in offered_kernels():
        if kernel.takes(levels):
            prepared = kernel(wanted)
            prepared.best(cells[:, :16])  # compiles the product
            hopeless = _HOPELESS * min(found.values(), default=math.inf)
            seconds: list[float] = []
            while len(seconds) < _REPETITIONS:
                begin = time.thread_time()
                prepared.best(cells)
                seconds.append(time.thread_time() - begin)
                if len(seconds) > 1 and min(seconds) > hopeless:
                    break
            found[kernel.name] = min(seconds)
    return {name: 1000 * taken / (shape[0] * shape[1]) for name, taken in found.items()}


def fastest(seconds: dict[str, float]) -> str:
    """The first kernel, or a later one that is clearly faster. seconds: in order of preference."""
    chosen, *others = seconds
    for name in others:
        if seconds[name] < _CLEARLY_FASTER * seconds[chosen]:
            chosen = name
    return chosen


def best_on_gpu(
    wanted: "torch.Tensor", levels: "torch.Tensor", valid: "torch.Tensor"
) -> "torch.Tensor":
    """The valid cell of each photo that is most similar to each vector in float16, (n, m) int64.

    wanted: (m, k) float32, of length 1 or 0. levels: (n, cells, k). valid: (n, cells) bool, at
    least one True per photo.
    """
    import torch

    numbers = levels.float()
    units = (numbers / lengths(numbers)).half()
    cosines = wanted.half() @ units.transpose(1, 2)
    return cosines.masked_fill_(~valid[:, None], -torch.inf).argmax(dim=2)


def lengths(vectors: "torch.Tensor") -> "torch.Tensor":
    """The lengths of (..., k) float32 vectors, (..., 1), at least 1e-12."""
    import torch

    return torch.linalg.vector_norm(vectors, dim=-1, keepdim=True).clamp_(min=1e-12)


def _best_cells(products: "torch.Tensor") -> "torch.Tensor":
    """The largest of (n, cells, m) products of each photo with each vector: its cell, (n, m) int64.

    torch is slow to tell where a maximum is. So the maximum of each group of cells is taken first,
    and only the cells of the best group are told apart.
    """
    n, cells, m = products.shape
    together = math.gcd(cells, _GROUP)
    if together == 1:
        return products.max(dim=1).indices
    groups = products.unflatten(1, (together, cells // together))
    group = _best_cells(groups.amax(dim=1))
    rivals = groups.gather(2, group[:, None, None].expand(n, together, 1, m)).squeeze(2)
    return rivals.max(dim=1).indices * (cells // together) + group


def _in_int8(wanted: "torch.Tensor") -> "tuple[torch.Tensor, torch.Tensor]":
    """Steps, (m,) float32, and (m, k) int8: each vector is about its step times these numbers."""
    import torch

    steps = wanted.abs().amax(dim=1).clamp(min=1e-12) / 127
    return steps, (wanted / steps[:, None]).round().to(torch.int8)


def _loss(wanted: "torch.Tensor", rounded: "torch.Tensor") -> float:
    """How much worse than the best a cell may be that is chosen by rounded vectors, in cosine.

    A product with a cell of length 1 is off by at most the length of the error (Cauchy-Schwarz),
    for the chosen cell and for the best one.
    """
    return 2 * float((wanted - rounded).norm(dim=1).amax())
