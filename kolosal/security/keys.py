"""API keys: what one is, and the file that holds those that `kolosal keys` makes.

A key is 256 random bits as text. Only its SHA-256 is kept: a digest of that much chance cannot be turned back, so a slow
password hash would cost each request time and win nothing. Knows nothing of requests; `auth` does.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, ClassVar, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer, ValidationError

from kolosal.config.errors import ConfigError
from kolosal.files.atomic import FileLock, write_file
from kolosal.files.regular import FileTooLong, read_regular

MAX_KEYS = 1000
"""Keys one file can hold: each request is compared with all of them."""

MAX_FILE_BYTES = 1024 * 1024
"""Bytes of a file of keys; a longer one is something else."""

KEY_NAME = r"^[A-Za-z0-9._@-]{1,64}$"
"""What a key may be called."""

_PREFIX = "kol_"
"""How a key begins, so that scanners for lost secrets can know it."""

_LOCK_WAIT_S = 5.0
"""A change takes some milliseconds, and a disk that is busy a second."""

_STRICT = ConfigDict(strict=True, extra="forbid", hide_input_in_errors=True)


class Scope(StrEnum):
    """What a key allows. Neither includes the other."""

    INFERENCE = "inference"
    """Use the engines."""
    ADMIN = "admin"
    """Add, change and remove engines, and see what is told to operators only."""


ALL_SCOPES = frozenset(Scope)


Limit: TypeAlias = Annotated[int, Field(ge=0, le=10**12)]
"""0 is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyLimits:
    """What one key may use; null: as `auth` of the configuration says, 0: without a limit."""

    __pydantic_config__ = _STRICT

    requests_per_minute: Limit | None = None
    """Requests for inference."""
    requests_per_day: Limit | None = None
    """The same for a day, which ends at midnight UTC."""
    tokens_per_minute: Limit | None = None
    """Tokens of prompts and answers."""
    tokens_per_day: Limit | None = None
    """The same for a day."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKey:
    """A key as the daemon knows it and as it stands in the file: all but the key itself. Bounds are the file's."""

    __pydantic_config__ = _STRICT

    id: Annotated[str, Field(min_length=1, max_length=64)]
    name: Annotated[str, Field(pattern=KEY_NAME)]
    scopes: Annotated[frozenset[Scope], Field(min_length=1), PlainSerializer(sorted)]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    """Of the key, in hexadecimal digits."""
    created: datetime | None
    """None for a key of the configuration."""
    limits: KeyLimits | None = None
    """Its own quotas; None: those of the configuration."""


class _Contents(BaseModel):
    """The whole file."""

    model_config = _STRICT

    keys: Annotated[tuple[ApiKey, ...], Field(max_length=MAX_KEYS)]


def digest_of(key: str) -> str:
    """What is kept and compared in place of a key: its SHA-256, in hexadecimal digits."""
    return hashlib.sha256(key.encode(errors="surrogateescape")).hexdigest()


def plain_key(key: str, name: str, scopes: frozenset[Scope] = ALL_SCOPES) -> ApiKey:
    """A key that an operator wrote into the configuration. Its id follows from it, and tells nothing of it."""
    digest = digest_of(key)
    key_id = f"key_{hashlib.sha256(bytes.fromhex(digest)).hexdigest()[:12]}"
    return ApiKey(id=key_id, name=name, scopes=scopes, sha256=digest, created=None)


class KeyFile:
    """The file of `kolosal keys`. Every call reads it anew; changes are atomic and exclude one another.

    Raises ConfigError for a file that cannot be read or changed or holds no keys, and for names that do not fit it.
    """

    changes: ClassVar[int] = 0
    """How often this process has changed any."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def signature(self) -> tuple[int, int, int] | None:
        """Changes when the file does; None where there is no file."""
        try:
            found = self.path.stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_size, found.st_ino

    def read(self) -> tuple[ApiKey, ...]:
        """All keys; none where there is no file."""
        try:
            content = read_regular(self.path, MAX_FILE_BYTES)
        except FileNotFoundError:
            return ()
        except OSError as exc:
            raise ConfigError(f"{self.path}: cannot be read: {exc.strerror or exc}") from exc
        try:
            return _Contents.model_validate_json(content).keys
        except ValidationError as exc:
            where = ".".join(str(part) for part in exc.errors(include_input=False)[0]["loc"])
            raise ConfigError(f"{self.path}: not a file of keys{where and f' (at {where})'}") from exc

    def create(
        self, name: str, scopes: Iterable[Scope], limits: KeyLimits | None = None
    ) -> tuple[ApiKey, str]:
        """Add a key; returns it, and the key itself, which nobody can ever be told again."""
        if not re.fullmatch(KEY_NAME, name):
            raise ConfigError(f"The name {name[:80]!r} must be 1 to 64 of the characters A-Z a-z 0-9 . _ @ -")
        key = _PREFIX + secrets.token_urlsafe(32)
        made = ApiKey(
            id=f"key_{secrets.token_hex(6)}",
            name=name,
            scopes=frozenset(scopes) or frozenset({Scope.INFERENCE}),
            sha256=digest_of(key),
            created=datetime.now(UTC).replace(microsecond=0),
            limits=limits,
        )
        with self._changing() as keys:
            if any(name in (other.name, other.id) for other in keys):
                raise ConfigError(
                    f"A key named {name!r} exists already: revoke it first, or take another name"
                )
            if len(keys) >= MAX_KEYS:
                raise ConfigError(f"{self.path}: holds {MAX_KEYS} keys, and more are not allowed")
            keys.append(made)
        return made, key

    def revoke(self, name: str) -> int:
        """Remove the key of that name or id; returns how many are left. An empty file still keeps everybody out."""
        with self._changing() as keys:
            left = [key for key in keys if name not in (key.name, key.id)]
            if len(left) == len(keys):
                raise ConfigError(f"No key has the name or id {name[:80]!r}: `kolosal keys list` shows all")
            keys[:] = left
        return len(left)

    @contextmanager
    def _changing(self) -> Iterator[list[ApiKey]]:
        """The keys, to be changed in place by one process at a time."""
        lock = FileLock(self.path)
        try:
            lock.take(_LOCK_WAIT_S)
        except BlockingIOError:
            raise ConfigError(
                f"{self.path}: another `kolosal keys` has been changing it for too long"
            ) from None
        except OSError as exc:
            raise ConfigError(f"{self.path}: cannot be written: {exc.strerror or exc}") from exc
        with closing(lock):
            keys = [*self.read()]
            yield keys
            content = (
                _Contents(keys=tuple(keys)).model_dump_json(indent=2, exclude_none=True).encode() + b"\n"
            )
            try:
                write_file(self.path, content)
                KeyFile.changes += 1
            except OSError as exc:
                raise ConfigError(f"{self.path}: cannot be written: {exc.strerror or exc}") from exc


def read_plain_keys(path: Path) -> tuple[ApiKey, ...]:
    """The keys of a text file: one a line, optionally followed by its scopes; `#` begins a comment line.

    Raises:
        ConfigError: it cannot be read, or a line is not that. The message holds the line's number, never a key.
    """
    try:
        text = read_regular(path, MAX_FILE_BYTES).decode("utf-8-sig")
    except FileTooLong:
        raise ConfigError(
            f"{path}: is longer than {MAX_FILE_BYTES} bytes, and holds something else than keys"
        ) from None
    except (OSError, ValueError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) and exc.strerror else "it is not UTF-8 text"
        raise ConfigError(f"{path}: cannot be read: {reason}") from None
    keys = []
    for number, line in enumerate(text.splitlines(), 1):
        key, *scopes = line.replace(",", " ").split() or [""]
        if not key or key.startswith("#"):
            continue
        if len(key) < 16 or any(scope not in ALL_SCOPES for scope in scopes):
            raise ConfigError(
                f"{path}:{number}: must be a key of at least 16 characters, alone or with scopes after it"
                f" ({', '.join(Scope)})"
            )
        given = frozenset(Scope(scope) for scope in scopes) or ALL_SCOPES
        keys.append(plain_key(key, f"{path.name}:{number}", given))
    if not 1 <= len(keys) <= MAX_KEYS:
        raise ConfigError(f"{path}: must hold 1 to {MAX_KEYS} keys, not {len(keys)}")
    return tuple(keys)
