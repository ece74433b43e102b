"""Thin Ray bindings: the scheduler, the workers and what they need. The rules live in ``renderfarm``."""
