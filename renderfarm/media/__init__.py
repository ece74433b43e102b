"""What the farm does with finished pictures: pure functions over files. Knows no Ray, no web and no database.

``pictures`` opens them, ``display`` shows linear light as Blender would, ``comparing`` tells two apart, ``flaws`` finds
what is likely wrong with one and ``sequences`` what its neighbours tell, ``merging`` puts parts together,
``thumbnails`` and ``movies`` make small things of large ones.
"""
