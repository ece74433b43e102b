"""Holding the places that know a unit's state against each other: each way in which two of them may disagree."""
