"""The benchmark scripts start, and the docs and the Makefile name them."""

import runpy
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
HELPERS = {"harness.py", "labelled_scenes.py", "stub_worker.py", "synthetic.py"}
SCRIPTS = sorted(p for p in (ROOT / "benchmarks").glob("*.py") if p.name not in HELPERS)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_a_script_prints_its_help(
    script: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(script.parent))
    monkeypatch.setattr(sys, "argv", [script.name, "--help"])
    with pytest.raises(SystemExit) as stopped:
        runpy.run_path(str(script), run_name="__main__")
    assert stopped.value.code == 0
    assert f"usage: {script.name}" in capsys.readouterr().out


def test_without_a_gpu_nothing_is_measured_on_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    script = ROOT / "benchmarks" / "gpu_check.py"
    monkeypatch.syspath_prepend(str(script.parent))
    monkeypatch.setattr(sys, "argv", [script.name])
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(SystemExit) as stopped:
        runpy.run_path(str(script), run_name="__main__")
    printed = capsys.readouterr()
    assert (stopped.value.code, printed.out, printed.err.count("\n")) == (2, "", 1)


def test_the_docs_name_every_script() -> None:
    docs = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "docs").glob("*.md"))
    missing = [script.name for script in SCRIPTS if f"benchmarks/{script.name}" not in docs]
    assert missing == []


def test_the_makefile_runs_scripts_that_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    named = {word for word in makefile.split() if word.startswith("benchmarks/")}
    assert named
    assert named <= {f"benchmarks/{script.name}" for script in SCRIPTS}
