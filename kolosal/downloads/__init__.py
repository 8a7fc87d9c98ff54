"""Fetching models: what a name means, which files that is, and getting them whole onto the disk.

The daemon decides and keeps books (`jobs`); the network is a child process's (`fetcher`), which may be killed at any moment.
"""
