"""A CUDA device made of CPU memory, for tests on machines without one.

Its tensors say `device="cuda:0"`, compute on the CPU, and refuse what CUDA refuses: tensors of two
devices in one operation, `.numpy()`, integer matrix products, the CPU's generators. What the host
would wait for (`item`, `nonzero`, copies, events) is counted by the line that asked for it, and
memory is counted, too. What is copied to the CPU without waiting arrives when something waits for
it. It tells nothing of a GPU's speed, its rounding, or what else runs out of order.

    with simulated_cuda() as gpu:
        model.to("cuda") ...
        print(gpu.waits)        # Counter of (kind, "file:line")

For inference only; for the thread that entered it, and the threads that are started within.
"""

import contextlib
import ctypes
import sys
import threading
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

_aten = torch.ops.aten
_HERE = "cuda:0"
_INTEGERS = {torch.int8, torch.uint8, torch.int16, torch.int32, torch.int64, torch.bool}
_HALVES = {torch.float16, torch.bfloat16}
_PRODUCTS = {_aten.mm, _aten.bmm, _aten.addmm, _aten.baddbmm, _aten.mv, _aten.dot, _aten.addmv}
# Of half-precision numbers a GPU sums these in float32; a CPU may do otherwise, and slowly.
_SUMMING = _PRODUCTS | {_aten.convolution, _aten.native_group_norm, _aten.native_layer_norm}
_SUMMING |= {_aten.linear, _aten._softmax, _aten.gelu, _aten.silu}
_CROSSING = {_aten.copy_, _aten._to_copy, _aten.copy, _aten.fill_, _aten.fill}
_INDEXING = {_aten.index, _aten.index_put_, _aten.index_put, _aten._index_put_impl_}
_COUNTING = {_aten.nonzero, _aten.masked_select, _aten.unique_dim, _aten._unique2}
# They change a tensor's shape in place, which the outer tensor would not notice.
_RESHAPING = {_aten.t_, _aten.transpose_, _aten.squeeze_, _aten.unsqueeze_, _aten.as_strided_}
_RESHAPING |= {_aten.resize_, _aten.set_}
# Such are used within these, which are run whole.
_WHOLE = {"quantile", "nanquantile"}
_QUIET = (str(Path(torch.__file__).parent), __file__, "<")

_active: "SimulatedCuda | None" = None


class SimulatedTensor(torch.Tensor):
    """A tensor on the simulated device. inner: the one on the CPU that holds its numbers."""

    inner: torch.Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, inner: torch.Tensor) -> "SimulatedTensor":
        layout = {"strides": inner.stride(), "storage_offset": inner.storage_offset()}
        made = torch.Tensor._make_wrapper_subclass(
            cls, inner.size(), **layout, dtype=inner.dtype, device=_HERE
        )
        made.inner = inner
        return made

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        if _active is None:
            raise RuntimeError("the simulated CUDA device is gone")
        return _active.run(func, args, kwargs or {})

    def __repr__(self, *, tensor_contents: object = None) -> str:
        return f"simulated({self.inner!r}, device='{_HERE}')"

    def tolist(self) -> Any:
        return self.cpu().tolist()

    def numpy(self, *, force: bool = False) -> Any:
        if not force:
            raise TypeError(f"can't convert {_HERE} device type tensor to numpy. Use Tensor.cpu()")
        return self.cpu().numpy()

    def __deepcopy__(self, memo: dict[int, Any]) -> "SimulatedTensor":
        if id(self) not in memo:
            memo[id(self)] = copied = self.detach().clone().requires_grad_(self.requires_grad)
            copied._is_param = isinstance(self, torch.nn.Parameter)
        return memo[id(self)]


class SimulatedCuda(TorchDispatchMode):
    """The device.

    waits: what the host would have waited for, (kind, "file:line"). kernels: operations started,
    by name. total, used, peak: bytes.
    """

    def __init__(self, total: int) -> None:
        super().__init__()
        self.total, self.used, self.peak = total, 0, 0
        self.waits: Counter[tuple[str, str]] = Counter()
        self.kernels: Counter[str] = Counter()
        self.generator = torch.Generator().manual_seed(0)
        # Copies to the CPU that nothing has waited for: where to, and what.
        self.arriving: list[tuple[torch.Tensor, torch.Tensor]] = []
        self._pinned: weakref.WeakSet[Any] = weakref.WeakSet()
        self._storages: set[int] = set()

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """torch then wraps nothing around each operation, and imports no compiler."""
        return False

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        return self.run(func, args, kwargs or {})

    def run(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        """An operation, wherever its tensors lie."""
        tensors = list(_tensors_in((args, kwargs)))
        ours = [tensor for tensor in tensors if isinstance(tensor, SimulatedTensor)]
        named = next((leaf for leaf in args if isinstance(leaf, torch.device)), None)
        target = kwargs.get("device", named)
        target = None if target is None else torch.device(target)
        to_us = bool(ours) if target is None else target.type == "cuda"
        packet = func.overloadpacket
        if packet is _aten.is_pinned:
            return not ours and args[0].untyped_storage() in self._pinned
        if packet in (_aten.pin_memory, _aten._pin_memory):
            self._pinned.add((copied := args[0].clone()).untyped_storage())
            return copied
        if kwargs.pop("pin_memory", False):
            self._pinned.add((made := func(*args, **kwargs)).untyped_storage())
            return made
        if not ours and not to_us:
            return func(*args, **kwargs)
        if target is not None and target.type == "cuda" and target.index:
            raise RuntimeError("CUDA error: invalid device ordinal")
        if func._can_decompose():
            with self:
                found = func.decompose(*args, **kwargs)
            if found is not NotImplemented:
                return found
        self._refuse(func, packet, args, kwargs, tensors, ours)
        if kind := self._wait(packet, args, kwargs, ours, to_us):
            self.waits[kind, _asker()] += 1
            self.arrive(len(self.arriving))
        elif packet is _aten.copy_ and not isinstance(args[0], SimulatedTensor):
            self.arriving.append((args[0], args[1].inner.clone()))
            return args[0].fill_(-1)
        self.kernels[packet.__name__] += 1
        if target is not None:
            kwargs = {**kwargs, "device": torch.device("cpu")}
        known = {id(tensor): tensor for tensor in tensors}
        known |= {id(tensor.inner): tensor for tensor in ours}
        found = self._compute(func, packet, *_inside((args, kwargs)))
        new = self.placed if to_us else lambda tensor: tensor
        return _mapped(found, lambda t: known[id(t)] if id(t) in known else new(t))

    def _compute(self, func: Any, packet: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        if packet in _SUMMING and (half := args[0].dtype) in _HALVES:
            args, kwargs = _mapped((args, kwargs), torch.Tensor.float)
            return _mapped(func(*args, **kwargs), lambda found: found.to(half))
        if torch.Tag.nondeterministic_seeded not in func.tags:
            return func(*args, **kwargs)
        before = torch.get_rng_state()
        torch.set_rng_state(self.generator.get_state())
        try:
            return func(*args, **{name: v for name, v in kwargs.items() if name != "generator"})
        finally:
            self.generator.set_state(torch.get_rng_state())
            torch.set_rng_state(before)

    def arrive(self, count: int) -> None:
        """Finish the first copies to the CPU."""
        for there, values in self.arriving[:count]:
            there.copy_(values)
        del self.arriving[:count]

    def placed(self, inner: torch.Tensor) -> SimulatedTensor:
        """A tensor on the device, by one on the CPU. Raises OutOfMemoryError."""
        storage = inner.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key not in self._storages:
            if self.used + size > self.total:
                free = self.total - self.used
                raise torch.OutOfMemoryError(f"CUDA out of memory: {size} bytes, {free} are free")
            self._storages.add(key)
            self.used += size
            self.peak = max(self.peak, self.used)
            weakref.finalize(storage, self._freed, key, size)
        # a view of a tensor made outside of inference mode must not be an inference tensor
        with torch.inference_mode(False):
            return SimulatedTensor(inner)

    def _freed(self, key: int, size: int) -> None:
        self._storages.discard(key)
        self.used -= size

    def _refuse(self, func, packet, args, kwargs, tensors, ours) -> None:  # type: ignore[no-untyped-def]
        if packet in _RESHAPING:
            raise NotImplementedError(f"{func}: not simulated")
        if kwargs.get("generator") not in (None, self.generator):
            raise RuntimeError("Expected a 'cuda' device type for generator but found 'cpu'")
        if packet is _aten._int_mm and (len(args[0]) <= 16 or any(n % 8 for n in args[1].shape)):
            raise RuntimeError(f"{func}: CUDA takes no such shape")
        if packet in _PRODUCTS and ours[0].dtype in _INTEGERS:
            raise RuntimeError(f'"{packet.__name__}_cuda" not implemented for {ours[0].dtype}')
        if packet in _CROSSING:
            return
        if packet in _INDEXING:  # indices may lie on the CPU, if what is indexed does not
            if not isinstance(args[0], SimulatedTensor):
                raise RuntimeError("indices should be either on cpu or on the same device")
            tensors = [args[0], *args[2:3]]
        elsewhere = [t for t in tensors if not isinstance(t, SimulatedTensor) and t.dim() > 0]
        if ours and elsewhere:
            shapes = [tuple(tensor.shape) for tensor in elsewhere]
            raise RuntimeError(
                f"{func}: Expected all tensors to be on the same device, but found at least two "
                f"devices, {_HERE} and cpu: {shapes}"
            )

    def _wait(self, packet, args, kwargs, ours, to_us) -> str | None:  # type: ignore[no-untyped-def]
        if packet is _aten._local_scalar_dense:
            return "item"
        masks = args[1] if packet in _INDEXING else []
        if packet in _COUNTING or any(m is not None and m.dtype == torch.bool for m in masks):
            return "nonzero"
        if packet not in (_aten.copy_, _aten._to_copy):
            return None
        source = args[1] if packet is _aten.copy_ else args[0]
        to_us = isinstance(args[0], SimulatedTensor) if packet is _aten.copy_ else to_us
        is_ours = isinstance(source, SimulatedTensor)
        is_asynchronous = kwargs.get("non_blocking") or (
            packet is _aten.copy_ and args[2:] == (True,)
        )
        if is_ours == to_us or (
            is_asynchronous and (is_ours or source.untyped_storage() in self._pinned)
        ):
            return None
        return "upload" if to_us else "download"


class _Indexed(TorchFunctionMode):
    """Calls the device by its number: a CPU build of torch cannot look up the current one."""

    def __torch_function__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        kwargs = kwargs or {}
        if func is torch.Tensor.cuda:
            return func(*args[:1], _HERE, *args[2:], **kwargs)
        if args and isinstance(args[0], SimulatedTensor):
            if getattr(func, "__name__", "") in _WHOLE and _active is not None:
                inside, named = _inside((args, kwargs))
                return _active.placed(func(*inside, **named))
            if func is torch.Tensor.new_tensor:
                kwargs = {"device": _HERE, **kwargs}
        return func(*map(_numbered, args), **{k: _numbered(value) for k, value in kwargs.items()})


def _numbered(value: Any) -> Any:
    return _HERE if isinstance(value, str | torch.device) and str(value) == "cuda" else value


def _inside(arguments: Any) -> Any:
    """Arguments with the tensors on the CPU in place of those on the device."""
    return _mapped(arguments, lambda t: t.inner if isinstance(t, SimulatedTensor) else t)


def _mapped(value: Any, change: Callable[[torch.Tensor], Any]) -> Any:
    """A copy of nested arguments in which every tensor is changed."""
    if isinstance(value, torch.Tensor):
        return change(value)
    if isinstance(value, list | tuple):
        return type(value)(_mapped(each, change) for each in value)
    if isinstance(value, dict):
        return {name: _mapped(each, change) for name, each in value.items()}
    return value


def _tensors_in(value: Any) -> Iterator[torch.Tensor]:
    """The tensors in nested arguments."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _tensors_in(each)
    elif isinstance(value, dict):
        yield from _tensors_in(list(value.values()))


def _asker() -> str:
    """The innermost line of code that is neither torch's nor this file's."""
    frame: Any = sys._getframe(2)
    while frame is not None and frame.f_code.co_filename.startswith(_QUIET):
        frame = frame.f_back
    return "?" if frame is None else f"{frame.f_code.co_filename}:{frame.f_lineno}"


@contextlib.contextmanager
def _guarded() -> Iterator[None]:
    """torch looks up a device's guard for `float(t)` and `t[0]`. A CPU build has none for CUDA: it
    gets the CPU's, which does nothing, for as long as this lasts.
    """
    library = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libc10.so"))
    guards = (ctypes.c_void_p * 2).in_dll(library, "_ZN3c104impl26device_guard_impl_registryE")
    before, guards[1] = guards[1], guards[1] or guards[0]
    try:
        yield
    finally:
        guards[1] = before


class _Stream:
    """A stream: all that was started on it is done."""

    def __init__(self, *_: object, **__: object) -> None: ...

    def __getattr__(self, _name: str) -> Any:
        return lambda *_, **__: None


class _Event:
    """An event; who waits for it finds the copies to the CPU that were started before it."""

    def __init__(self, **_: object) -> None:
        self._before: list[Any] = []

    def record(self, _stream: object = None) -> None:
        assert _active is not None
        self._before = list(_active.arriving)

    def synchronize(self) -> None:
        assert _active is not None
        _active.waits["event", _asker()] += 1
        ours = [any(one is other for other in self._before) for one in _active.arriving]
        _active.arrive(sum(ours))


@contextlib.contextmanager
def simulated_cuda(total: int = 80 * 2**30) -> Iterator[SimulatedCuda]:
    """A CUDA device. total: its memory, bytes."""
    global _active
    gpu = SimulatedCuda(total)

    def seed(number: int) -> None:
        gpu.generator.manual_seed(number ^ 0x5DEECE66D)  # other numbers than the CPU's

    about = {"name": "simulated", "total_memory": total, "major": 9, "minor": 0}
    stubs: dict[str, Any] = dict.fromkeys(
        ("_lazy_init", "empty_cache", "synchronize", "set_device")
    )
    stubs = {name: lambda *_, **__: None for name in stubs}
    stubs |= {
        n: lambda *_, **__: True for n in ("is_available", "is_initialized", "is_bf16_supported")
    }
    stubs |= {n: lambda *_: gpu.used for n in ("memory_allocated", "memory_reserved")}
    stubs |= dict.fromkeys(("manual_seed", "manual_seed_all"), seed)
    stubs |= {"Stream": _Stream, "current_stream": _Stream, "Event": _Event}
    stubs |= {
        "device_count": lambda: 1,
        "current_device": lambda: 0,
        "get_device_properties": lambda *_: SimpleNamespace(**about, multi_processor_count=132),
        "get_device_capability": lambda *_: (9, 0),
        "get_device_name": lambda *_: "simulated",
        "mem_get_info": lambda *_: (gpu.total - gpu.used, gpu.total),
        "max_memory_allocated": lambda *_: gpu.peak,
        "reset_peak_memory_stats": lambda *_: setattr(gpu, "peak", gpu.used),
        "get_rng_state": lambda *_: gpu.generator.get_state(),
        "set_rng_state": lambda state, *_: gpu.generator.set_state(state),
        "default_generators": (gpu.generator,),
        "stream": lambda _: contextlib.nullcontext(),
    }
    future, before = torch.__future__, torch._C._only_lift_cpu_tensors()
    overwrite = future.get_overwrite_module_params_on_conversion()
    with contextlib.ExitStack() as stack:
        for name, stub in stubs.items():
            stack.enter_context(mock.patch.object(torch.cuda, name, stub))
        stack.enter_context(_guarded())
        # a parameter cannot become another kind of tensor in place
        stack.callback(future.set_overwrite_module_params_on_conversion, overwrite)
        future.set_overwrite_module_params_on_conversion(True)
        # torch.tensor(..., device="cuda") goes through the mode
        stack.callback(torch._C._set_only_lift_cpu_tensors, before)
        torch._C._set_only_lift_cpu_tensors(True)
        stack.callback(lambda: globals().update(_active=None))
        _active = gpu
        # modes belong to a thread
        stack.enter_context(mock.patch.object(threading.Thread, "run", _on_device(gpu)))
        with _Indexed(), gpu:
            yield gpu


def _on_device(gpu: SimulatedCuda) -> Callable[[threading.Thread], None]:
    """`Thread.run` with the device."""
    run = threading.Thread.run

    def run_on_device(thread: threading.Thread) -> None:
        with _Indexed(), gpu:
            run(thread)

    return run_on_device
