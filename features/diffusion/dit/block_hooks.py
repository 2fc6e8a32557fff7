"""Reading and changing what goes through the modules of one block while a transformer runs."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


class _SeenError(Exception):
    """Ends a forward pass when nothing more is to be seen."""


class _Seen:
    """What is to be seen of so many modules, by their place among them."""

    def __init__(self, count: int) -> None:
        self._found: list[torch.Tensor | None] = [None] * count

    def keep(self, place: int, tensor: "torch.Tensor") -> None:
        self._found[place] = tensor
        if all(each is not None for each in self._found):
            raise _SeenError

    def run(self, hooks: Sequence[Any], forward: Callable[[], object]) -> list["torch.Tensor"]:
        """What `keep`, which the hooks call, is given while `forward` runs."""
        try:
            forward()
        except _SeenError:
            pass
        finally:
            for handle in hooks:
                handle.remove()
        return [each for each in self._found if each is not None]


def outputs_of(modules: Sequence[Any], forward: Callable[[], object]) -> list["torch.Tensor"]:
    """The outputs of modules, each of which runs once in `forward`; what comes after the last of
    them does not run.
    """
    seen = _Seen(len(modules))
    hooks = [
        module.register_forward_hook(lambda *given, place=place: seen.keep(place, given[2]))
        for place, module in enumerate(modules)
    ]
    return seen.run(hooks, forward)


def inputs_of(modules: Sequence[Any], forward: Callable[[], object]) -> list["torch.Tensor"]:
    """The first inputs of modules, each of which runs once in `forward`; neither the last of them
    nor what comes after it runs.
    """
    seen = _Seen(len(modules))
    hooks = [
        module.register_forward_pre_hook(lambda _, inputs, place=place: seen.keep(place, inputs[0]))
        for place, module in enumerate(modules)
    ]
    return seen.run(hooks, forward)


@contextmanager
def changed_input(module: Any, change: "Callable[[torch.Tensor], torch.Tensor]") -> Iterator[None]:
    """While this is open, a module gets its first input changed."""

    def hook(_module: object, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        return change(inputs[0]), *inputs[1:]

    handle = module.register_forward_pre_hook(hook)
    try:
        yield
    finally:
        handle.remove()
