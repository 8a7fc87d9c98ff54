"""`encrypted_content`: thoughts that a client keeps for the daemon, which knows by a signature that they are its own.

They are compressed and signed, and not secret: the same client gets them as `content` as well. The key ends with the daemon.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets
import zlib

_KEY_BYTES = 32
_DIGEST_BYTES = 32


class ThoughtSeal:
    """Seals and opens thoughts, with a key of its own."""

    def __init__(self) -> None:
        self._key = secrets.token_bytes(_KEY_BYTES)

    def seal(self, text: str) -> str:
        """The thoughts as a client is to keep them."""
        packed = zlib.compress(text.encode())
        return base64.urlsafe_b64encode(self._sign(packed) + packed).decode()

    def open(self, sealed: str) -> str | None:
        """The thoughts; None where this seal did not make them, or they were changed since."""
        try:
            raw = base64.urlsafe_b64decode(sealed)
        except (ValueError, binascii.Error):
            return None
        digest, packed = raw[:_DIGEST_BYTES], raw[_DIGEST_BYTES:]
        if not hmac.compare_digest(digest, self._sign(packed)):
            return None
        return zlib.decompress(packed).decode()

    def _sign(self, packed: bytes) -> bytes:
        return hmac.digest(self._key, packed, hashlib.sha256)
