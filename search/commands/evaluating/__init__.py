"""The evaluations of `waldo evaluate` by kind: searches, masks and videos, and photo groups."""
