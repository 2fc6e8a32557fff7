"""The command line `waldo`: arguments are parsed and results are printed here, and nowhere else.

Start with `app`, which lists the commands; each is a function in one of the `*_commands` modules.
`options` has what they share. Answers are shown by `tables`, `answer_page` and `runs_page`.
"""
