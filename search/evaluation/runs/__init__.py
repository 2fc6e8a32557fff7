"""Finished runs, put beside each other: `run_files` reads them and makes their tables, `values` has
what a method reached on each query, `comparison` tells whether one is better than another, `curves`
and `breakdowns` have the data of charts.
"""
