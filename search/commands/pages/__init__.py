"""HTML pages of results: `answer_page` of a search, `runs_page` of evaluation runs, `features_page`
of what a model makes of photos.

`rendering` fills in the templates. A page is one file that holds its pictures.
"""
