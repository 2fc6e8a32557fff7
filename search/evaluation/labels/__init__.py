"""How well masks of objects are drawn, and carried through videos, on labelled benchmarks."""
