"""What `waldo evaluate` is asked, and its evaluations of masks and videos, object by object."""
