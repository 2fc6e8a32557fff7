"""The nouns that class names are expected to be."""

from pathlib import Path

_FILE = Path(__file__).with_name("nouns.txt")


def nouns() -> list[str]:
    """Everyday English nouns and the names that the bundled model was taught, sorted.

    From WordNet 3.0; `nouns.txt` holds its licence.
    """
    lines = _FILE.read_text(encoding="utf-8").splitlines()
    return [line for line in lines if not line.startswith("#")]
