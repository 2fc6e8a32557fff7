"""A query in, ranked matches out: recall, re-ranking, localisation, and the command line."""
