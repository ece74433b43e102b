"""What runs inside Blender's Python: the standard library and bpy only."""
