"""A Blender render farm: the library. Imports no Ray, no FastAPI and no Blender."""

__version__ = "0.1.0"
