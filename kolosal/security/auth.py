"""Authentication: whose key a request carries, and addresses that guess keys.

Owns the rules: when keys are needed, how they are compared, when an address is refused. Knows nothing of HTTP and of
paths: `routes.common.access` asks here. Used on the event loop only.
"""

from __future__ import annotations

import hmac
import ipaddress
import logging
import math
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from typing import Any, NamedTuple, TypeVar

from kolosal.config.errors import ConfigError
from kolosal.errors import AuthenticationFailed, KeyMissing, TooManyAttempts
from kolosal.files.deadline import NoAnswer, start
from kolosal.security.keys import ApiKey, KeyFile, digest_of

K = TypeVar("K")

log = logging.getLogger(__name__)

LOCKOUT_WINDOW_S = 60.0
"""How long a wrong key is held against its address."""

MAX_ADDRESSES = 10_000
"""Addresses whose wrong keys are remembered; those that were heard of least recently are forgotten first."""

_IPV6_NETWORK = 64
"""Bits of an IPv6 address that name a network (RFC 4291, 2.5.1): the rest is free to choose for whoever guesses."""


LOOK_EVERY_S = 0.05
"""How long a change of the file of keys may go unseen: to ask a disk that may be silent takes a thread, some 0.1 ms."""

_LOOK_LIMIT_S = 0.25
"""How long a request, and with it all others, waits to hear whether the file of keys has changed."""


class _Look(NamedTuple):
    """What the file of keys is at one time."""

    signature: tuple[int, int, int] | None
    found: tuple[ApiKey, ...] | ConfigError
    """Read only where the signature is another one than before."""


def _look_at(file: KeyFile, known: tuple[int, int, int] | None) -> _Look:
    signature = file.signature()
    if signature == known:
        return _Look(signature, ())
    try:
        return _Look(signature, file.read())
    except ConfigError as exc:
        return _Look(signature, exc)


class Keyring:
    """All keys that are valid now: those of the configuration, and those of the file, which may change at any time.

    Keys that were needed once are needed until the daemon ends: a file that is emptied or deleted lets nobody in.
    """

    def __init__(
        self, configured: Sequence[ApiKey] = (), file: KeyFile | None = None, *, look_every_s: float = 0.0
    ) -> None:
        """`look_every_s`: for how long the file may have changed unseen. Raises ConfigError where it cannot be read."""
        self._look_every_s = look_every_s
        self._changes = KeyFile.changes
        self._look_again_at = -math.inf  # on the clock that never jumps
        self._configured = tuple(configured)
        self._file = file
        self._signature = None if file is None else file.signature()
        self._from_file = () if file is None else file.read()
        self._needed = bool(configured) or self._signature is not None
        self._looking: Future[_Look] | None = None
        self._is_unread = False
        self.problem: str | None = None
        """Why the file cannot be read, as a sentence without paths; None where it can."""

    @property
    def needed(self) -> bool:
        """Whether requests need a key."""
        self._read_changes()
        return self._needed

    @property
    def configured(self) -> tuple[ApiKey, ...]:
        """Those of the configuration."""
        return self._configured

    @property
    def keys(self) -> tuple[ApiKey, ...]:
        """All that are valid now."""
        self._read_changes()
        return (*self._configured, *self._from_file)

    @property
    def file(self) -> KeyFile | None:
        """Where keys are made and revoked; None where there is no place for them."""
        return self._file

    def find(self, presented: str) -> ApiKey | None:
        """The key that was presented. Takes as long for a wrong one as for a right one."""
        self._read_changes()
        digest = digest_of(presented)
        found = self._with_digest(digest)
        before = self._from_file
        if found is None:  # it may have been made just now
            self._read_changes(at_once=True)
        return found if self._from_file is before else self._with_digest(digest)

    def _with_digest(self, digest: str) -> ApiKey | None:
        found = None
        for key in (*self._configured, *self._from_file):
            if hmac.compare_digest(digest, key.sha256):
                found = key
        return found

    def holds(self, key: ApiKey) -> bool:
        """Whether a key that was found earlier is still valid, with the same scopes."""
        self._read_changes()
        return key in self._configured or key in self._from_file

    def _read_changes(self, *, at_once: bool = False) -> None:
        """Read the file again when it has changed; `at_once`: also where it was looked at a moment ago.

        One that cannot be read lets in those of before, and nobody else.
        """
        look = self._look(at_once=at_once)
        if look is None:
            return
        if look.signature == self._signature:
            self._note_readable()
            return
        self._needed = True
        match look.found:
            case ConfigError() as error:
                self._note_problem(str(error))
                self._is_unread = isinstance(error.__cause__, OSError)
                if self._is_unread:
                    return  # a virus scanner has it, or files are used up: the next request looks again
            case found:
                self._from_file = found
                self._is_unread, self.problem = False, None
                log.info("keys.changed", extra={"keys": len(found)})
        self._signature = look.signature

    def _look(self, *, at_once: bool) -> _Look | None:
        """What the file is now; None where it cannot be told. Waits for the disk for a moment, and for a silent one once."""
        now = time.monotonic()
        is_fresh = now < self._look_again_at and self._changes == KeyFile.changes
        if self._file is None or (is_fresh and not at_once):
            return None
        self._changes = KeyFile.changes
        self._look_again_at = now + self._look_every_s
        try:
            is_new = self._looking is None
            look = self._looking or start(_look_at, self._file, self._signature)
            self._looking = look
            wait([look], _LOOK_LIMIT_S if is_new else 0)
            if look.done():
                self._looking = None
                return look.result()
        except NoAnswer:
            pass
        self._note_problem("the disk does not answer")
        self._is_unread = True
        return None

    def _note_readable(self) -> None:
        if self._is_unread:
            self._is_unread, self.problem = False, None

    def _note_problem(self, reason: str) -> None:
        if self.problem is None:
            log.error("keys.not_read", extra={"reason": reason})
        self.problem = "The file of API keys cannot be read: the keys of before are valid, and no others"


class Lockout:
    """Addresses that present wrong keys are locked out: so many within `LOCKOUT_WINDOW_S`, 0 for never.

    It also remembers which keys have come from where, so that those are let in from an address that is locked out.
    """

    def __init__(self, max_failures: int, clock: Callable[[], float]) -> None:
        self._max_failures = max_failures
        self._clock = clock
        self._failures: OrderedDict[str, deque[float]] = OrderedDict()
        self._known: OrderedDict[tuple[str, str], None] = OrderedDict()

    def refused_for_s(self, address: str) -> float:
        """Seconds that an address is still refused; 0 when it is not."""
        failures = self._failures.get(address)
        if failures is None or not self._max_failures:
            return 0.0
        oldest = self._clock() - LOCKOUT_WINDOW_S
        while failures and failures[0] <= oldest:
            failures.popleft()
        return failures[0] - oldest if len(failures) >= self._max_failures else 0.0

    def note_failure(self, address: str) -> None:
        """A wrong key came from there. Not to be called for a refused address."""
        if self._max_failures:
            self._failures.setdefault(address, deque(maxlen=self._max_failures)).append(self._clock())
            _keep_newest(self._failures, address)

    def note_success(self, address: str, key_id: str) -> None:
        """A right key came from there."""
        self._known[address, key_id] = None
        _keep_newest(self._known, (address, key_id))

    def knows(self, address: str, key_id: str) -> bool:
        """Whether that key has come from that address before."""
        return (address, key_id) in self._known


class Authenticator:
    """Says whose a request is: the keyring and the lockout together."""

    def __init__(self, keyring: Keyring, lockout: Lockout) -> None:
        self._keyring = keyring
        self._lockout = lockout

    @property
    def needed(self) -> bool:
        """Whether requests need a key at all."""
        return self._keyring.needed

    @property
    def keys(self) -> tuple[ApiKey, ...]:
        """All that are valid now."""
        return self._keyring.keys

    @property
    def configured(self) -> tuple[ApiKey, ...]:
        """Those of them that stand in the configuration."""
        return self._keyring.configured

    @property
    def file(self) -> KeyFile | None:
        """Where keys are made and revoked; None where there is no place for them."""
        return self._keyring.file

    def identify(self, presented: Sequence[str], client: str) -> ApiKey | None:
        """The key of a request that carries these; None where no key is needed.

        An address that guesses is refused also with a right key, because otherwise it could go on guessing; but not with
        one that came from there before: somebody else's wrong key must not keep out the clients behind the same proxy.

        Raises:
            KeyMissing: it carries none.
            AuthenticationFailed: it carries no valid one.
            TooManyAttempts: its address has presented too many wrong ones.
        """
        if not self._keyring.needed:
            return None
        if not presented:
            raise KeyMissing(
                "An API key is required: send it as 'Authorization: Bearer KEY' or 'X-API-Key: KEY'"
            )
        address = network_of(client)
        refused_s = self._lockout.refused_for_s(address)
        known = [found for found in map(self._keyring.find, presented) if found is not None]
        key = known[0] if known else None
        if refused_s and (key is None or not self._lockout.knows(address, key.id)):
            raise TooManyAttempts(
                "Too many wrong API keys came from this address: wait and try again",
                retry_after_s=math.ceil(refused_s),
            )
        if key is None:
            self._lockout.note_failure(address)
            if self._lockout.refused_for_s(address):
                log.warning("auth.address_refused", extra={"client": address})
            raise AuthenticationFailed("The API key is not valid")
        self._lockout.note_success(address, key.id)
        return key

    @property
    def problem(self) -> str | None:
        """Why keys that were changed lately may not count yet, as a sentence; None where all do."""
        return self._keyring.problem

    def still_admits(self, key: ApiKey | None) -> bool:
        """Whether somebody who was let in with this key, or without one, still would be: for connections that last."""
        if key is None:
            return not self._keyring.needed
        return self._keyring.holds(key)


def network_of(client: str) -> str:
    """What of a client's address counts: of IPv6 the network, because the rest is the client's to choose."""
    try:
        address = ipaddress.ip_address(client.partition("%")[0])
    except ValueError:
        return client[:64]
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.ip_network((address, _IPV6_NETWORK), strict=False))


def _keep_newest(table: OrderedDict[K, Any], key: K) -> None:
    table.move_to_end(key)
    if len(table) > MAX_ADDRESSES:
        table.popitem(last=False)
