"""What keeps a service from being installed, started or looked at."""

from __future__ import annotations


class ServiceError(Exception):
    """One sentence for the user, with what to do about it. What had been begun is undone."""
