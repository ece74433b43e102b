"""The wire: what goes in and out as JSON, and the one way from the domain's values to it.

snake_case; times are ISO 8601 in UTC; what does not exist is null; ``status`` is a thing's state.
"""
