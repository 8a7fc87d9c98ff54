"""Building llama.cpp on the machine that runs it: the presets, what a build needs, its progress, and the build itself.

Python's library only, and for old Pythons to read: the scripts of a checkout use it before anything is installed.
"""
