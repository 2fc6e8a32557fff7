"""Reading and changing what goes through the modules of one block while a transformer runs."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


class _SeenError(Exception):
    """Ends a forward pass when nothing more is to be seen."""


def outputs_of(modules: Sequence[Any], forward: Callable[[], object]) -> list["torch.Tensor"]:
    """The outputs of modules, each of which runs once in `forward`; what comes after the last of
    them does not run.
    """
    seen: dict[int, torch.Tensor] = {}

    def hook(place: int) -> Callable[..., None]:
        def keep(_module: object, _inputs: object, output: "torch.Tensor") -> None:
            seen[place] = output
            if len(seen) == len(modules):
                raise _SeenError

        return keep

    hooks = [module.register_forward_hook(hook(place)) for place, module in enumerate(modules)]
    _run_with(hooks, forward)
    return [seen[place] for place in range(len(modules))]


def input_of(module: Any, forward: Callable[[], object]) -> "torch.Tensor":
    """The first input of a module; neither it nor what comes after it runs."""
    seen: list[torch.Tensor] = []

    def keep(_module: object, inputs: tuple["torch.Tensor", ...]) -> None:
        seen.append(inputs[0])
        raise _SeenError

    _run_with([module.register_forward_pre_hook(keep)], forward)
    return seen[0]


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


def _run_with(hooks: Sequence[Any], forward: Callable[[], object]) -> None:
    try:
        forward()
    except _SeenError:
        pass
    finally:
        for handle in hooks:
            handle.remove()
