"""Grammars of requests: what they may cost, and how they become constraints."""
