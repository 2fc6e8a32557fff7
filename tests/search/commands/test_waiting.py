"""The command line sets how OpenMP's threads wait, unless the user has."""

import subprocess
import sys

import pytest

SHOW_SETTINGS = """
import contextlib, os, sys
from search.commands.app import main
assert "torch" not in sys.modules, "it would have read the settings already"
sys.argv = ["waldo", "models", "--json"]
with contextlib.suppress(SystemExit), contextlib.redirect_stdout(None):
    main()
print({name: value for name, value in os.environ.items() if name.startswith(("OMP_", "GOMP_"))})
"""


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ({}, {"OMP_WAIT_POLICY": "PASSIVE"}),
        ({"OMP_WAIT_POLICY": "ACTIVE"}, {"OMP_WAIT_POLICY": "ACTIVE"}),
        ({"GOMP_SPINCOUNT": "100"}, {"GOMP_SPINCOUNT": "100"}),
    ],
)
def test_waiting_is_passive_unless_the_user_has_set_it(
    given: dict[str, str], found: dict[str, str]
) -> None:
    run = subprocess.run(
        [sys.executable, "-c", SHOW_SETTINGS], env=given, capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == str(found)
