"""The command line `waldo`: arguments are parsed and results are printed here, and nowhere else.

Start with `app`, which lists the commands; each is a function in one of the `*_commands` modules.
What they share (options, help, tables) is in `terminal`, and pages of results are in `pages`.
"""
