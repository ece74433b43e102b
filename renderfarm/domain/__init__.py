"""The farm's rules, pure: no clock, no network, no database, no Blender."""
