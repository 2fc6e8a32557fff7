"""How a library call refuses."""

from typing import Any

import pytest

from features.errors import WaldoError


def refusal(call: Any, *arguments: Any) -> str:
    """The one line that a call ends with."""
    with pytest.raises(WaldoError) as refused:
        call(*arguments)
    line = str(refused.value)
    assert "\n" not in line
    return line
