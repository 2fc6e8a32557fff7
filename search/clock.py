"""A clock for the stages of a query."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass
class Clock:
    """Measures the seconds of each stage. The times of a stage that is entered twice are added."""

    started: float = field(default_factory=time.perf_counter)
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        begin = time.perf_counter()
        try:
            yield
        finally:
            spent = time.perf_counter() - begin
            self.seconds[stage] = self.seconds.get(stage, 0.0) + spent

    def stages(self) -> dict[str, float]:
        """Seconds by stage, in the order in which stages were first entered; and `total`.

        `total` counts from the creation of the clock.
        """
        return {**self.seconds, "total": time.perf_counter() - self.started}
