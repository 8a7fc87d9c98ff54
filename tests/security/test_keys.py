"""API keys on disk: made, listed, taken back, and never readable again."""

from __future__ import annotations

import os
import stat
import sys
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kolosal.config.errors import ConfigError
from kolosal.files.atomic import FileLock
from kolosal.security import keys
from kolosal.security.keys import ALL_SCOPES, KeyFile, Scope, digest_of, plain_key, read_plain_keys


@pytest.fixture
def file(tmp_path: Path) -> KeyFile:
    return KeyFile(tmp_path / "state" / "keys.json")


def test_a_key_is_found_by_its_digest_and_not_in_the_file(file: KeyFile) -> None:
    made, key = file.create("laptop", [Scope.ADMIN])
    [read] = file.read()
    assert read == made
    assert read.sha256 == digest_of(key)
    assert read.name == "laptop"
    assert read.scopes == {Scope.ADMIN}
    assert key.startswith("kol_")
    assert len(key) == 47  # 256 bits
    assert key not in file.path.read_text()


def test_a_key_is_for_inference_unless_told_otherwise(file: KeyFile) -> None:
    assert file.create("a", [])[0].scopes == {Scope.INFERENCE}


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX modes")
def test_only_the_owner_may_read_the_file(file: KeyFile) -> None:
    file.create("a", [])
    assert stat.S_IMODE(file.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.path.parent.stat().st_mode) == 0o700


def test_a_key_is_revoked_by_name_or_id(file: KeyFile) -> None:
    first, _ = file.create("a", [])
    file.create("b", [])
    assert file.revoke(first.id) == 1
    assert file.revoke("b") == 0
    assert file.read() == ()
    assert file.signature() is not None


def test_every_change_changes_the_signature(file: KeyFile) -> None:
    seen = {file.signature()}
    for name in ("a", "b"):
        file.create(name, [])
        seen.add(file.signature())
    file.revoke("a")
    seen.add(file.signature())
    assert len(seen) == 4
    assert {path.name for path in file.path.parent.iterdir()} == {"keys.json", "keys.json.lock"}


@pytest.mark.parametrize("name", ["", "a b", "x" * 65, "a/b", "ü"])
def test_names_that_cannot_be_used(file: KeyFile, name: str) -> None:
    with pytest.raises(ConfigError, match="must be 1 to 64 of the characters"):
        file.create(name, [])


def test_a_name_is_taken_once(file: KeyFile) -> None:
    file.create("a", [])
    with pytest.raises(ConfigError, match="exists already"):
        file.create("a", [])
    assert len(file.read()) == 1


def test_a_key_that_is_not_there_cannot_be_revoked(file: KeyFile) -> None:
    file.create("a", [])
    with pytest.raises(ConfigError, match="No key has the name or id 'b'"):
        file.revoke("b")
    assert len(file.read()) == 1


def test_two_changes_at_once_exclude_each_other(file: KeyFile, monkeypatch: pytest.MonkeyPatch) -> None:
    file.create("a", [])
    monkeypatch.setattr(keys, "_LOCK_WAIT_S", 0.0)
    with closing(FileLock(file.path)) as other:
        other.take()
        with pytest.raises(ConfigError, match="another `kolosal keys` has been changing it"):
            file.create("b", [])
    assert len(file.read()) == 1


def test_what_a_kill_left_behind_keeps_nobody_from_revoking(file: KeyFile) -> None:
    file.create("a", [])
    for name in ("keys.json.new", "keys.json.x7.tmp", "keys.json.lock"):
        file.path.with_name(name).write_bytes(b"half a fi")
    assert file.revoke("a") == 0
    assert {path.name for path in file.path.parent.iterdir()} == {"keys.json", "keys.json.lock"}


@pytest.mark.parametrize("content", [
    b"", b"[]", b"{}", b"\xff", b'{"keys": [{"id": "a"}]}', b'{"keys": [], "more": 1}',
    b'{"keys":[{"id":"a","name":"a","scopes":["root"],"sha256":"00","created":"2026-01-01T00:00:00Z"}]}',
])  # fmt: skip
def test_what_is_no_file_of_keys_is_one_line(file: KeyFile, content: bytes) -> None:
    file.path.parent.mkdir()
    file.path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"keys\.json: not a file of keys"):
        file.read()


def test_a_file_that_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        KeyFile(tmp_path).read()


@given(content=st.binary(max_size=300))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_content_is_keys_or_one_line(file: KeyFile, content: bytes) -> None:
    file.path.parent.mkdir(exist_ok=True)
    file.path.write_bytes(content)
    message = ""
    try:
        file.read()
    except ConfigError as exc:
        message = str(exc)
    assert "\n" not in message


def test_plain_keys_have_both_scopes_unless_the_line_says_otherwise(tmp_path: Path) -> None:
    path = tmp_path / "keys.txt"
    path.write_text(
        "# ours\nfirst-key-0123456789\n\nsecond-key-0123456789 inference\nthird-key-0123456789 admin,inference\n"
    )
    first, second, third = read_plain_keys(path)
    assert first.sha256 == digest_of("first-key-0123456789")
    assert first.scopes == third.scopes == ALL_SCOPES
    assert second.scopes == {Scope.INFERENCE}
    assert second.name == "keys.txt:4"


def test_too_many_keys_are_told_and_not_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "keys.txt"
    path.write_text("\n".join(f"a-long-enough-key-{number}" for number in range(1001)))
    with pytest.raises(ConfigError, match="1 to 1000 keys, not 1001"):
        read_plain_keys(path)
    path.write_text("# comments do not count\n" * 2000 + "a-long-enough-key-1\n")
    assert len(read_plain_keys(path)) == 1
    path.write_text("#" * 1_100_000)
    with pytest.raises(ConfigError, match="longer than"):
        read_plain_keys(path)


@pytest.mark.parametrize("text", ["short", "long-enough-0123456789 root", "# only a comment", ""])
def test_a_wrong_line_is_told_without_its_key(tmp_path: Path, text: str) -> None:
    path = tmp_path / "keys.txt"
    path.write_text(text)
    with pytest.raises(ConfigError) as raised:
        read_plain_keys(path)
    assert str(path) in str(raised.value)
    assert not text or text.split(maxsplit=1)[0] not in str(raised.value).replace(str(path), "")


def test_the_id_of_a_configured_key_stays_and_tells_nothing() -> None:
    one = plain_key("a" * 20, "x")
    assert one.id == plain_key("a" * 20, "y").id != plain_key("b" * 20, "x").id
    assert one.id.removeprefix("key_") not in digest_of("a" * 20)


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() != 0, reason="only root may give files away")
def test_a_file_that_root_changes_stays_its_owners(file: KeyFile) -> None:
    file.create("a", [])
    os.chown(file.path, 12345, 12345)
    file.create("b", [])
    assert file.path.stat().st_uid == 12345


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="cannot be written"):
        KeyFile(tmp_path / "file" / "keys.json").create("a", [])


def test_a_full_file_takes_no_more(file: KeyFile, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys, "MAX_KEYS", 1)
    file.create("a", [])
    with pytest.raises(ConfigError, match="holds 1 keys"):
        file.create("b", [])


def test_a_change_that_fails_leaves_the_file_as_it_was(
    file: KeyFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    file.create("a", [])

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ConfigError, match="No space left"):
        file.create("b", [])
    assert [key.name for key in file.read()] == ["a"]
    assert {path.name for path in file.path.parent.iterdir()} == {"keys.json", "keys.json.lock"}
