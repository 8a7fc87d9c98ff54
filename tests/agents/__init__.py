"""Coding agents, which are downloaded: `scripts/test.py --extra agents`."""
