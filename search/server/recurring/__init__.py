"""Recurring objects over HTTP: `known_objects` keeps them until the index changes,
`object_endpoints` answers.
"""
