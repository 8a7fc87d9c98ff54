"""Engines on more than this machine: which replica of an engine answers a request, and how many there are."""
