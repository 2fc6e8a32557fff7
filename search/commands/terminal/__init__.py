"""How commands talk with a terminal: options and help, lists of searches, tables, progress."""
