"""The commands of `waldo`."""
