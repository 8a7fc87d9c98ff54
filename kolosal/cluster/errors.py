"""Why a cluster cannot be joined."""

from __future__ import annotations


class ClusterError(Exception):
    """A daemon cannot join a cluster; the message is one sentence for its owner."""
