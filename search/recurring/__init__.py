"""Objects that recur in a collection, found without being asked.

`linking` compares regions of photos and stores which show the same thing, `clusters` divides linked
regions into groups, `recurrence` makes objects of the groups.
"""
