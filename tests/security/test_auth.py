"""Whose a request is, and which addresses are refused: on a clock that the test moves."""

from __future__ import annotations

import hmac
import os
import sys
import threading
from concurrent.futures import wait
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from kolosal.config.errors import ConfigError
from kolosal.errors import AuthenticationFailed, KeyMissing, TooManyAttempts
from kolosal.security import auth
from kolosal.security.auth import MAX_ADDRESSES, Authenticator, Keyring, Lockout, network_of
from kolosal.security.keys import KeyFile, Scope, plain_key

KEY, OTHER = "a-key-of-our-own-1234", "another-key-of-ours-1"


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def file(tmp_path: Path) -> KeyFile:
    return KeyFile(tmp_path / "keys.json")


def authenticator(clock: Clock, max_failures: int = 10) -> Authenticator:
    keys = [plain_key(KEY, "one"), plain_key(OTHER, "two")]
    return Authenticator(Keyring(keys), Lockout(max_failures, clock))


def test_without_keys_nobody_needs_one(file: KeyFile) -> None:
    open_to_all = Authenticator(Keyring((), file), Lockout(10, Clock()))
    assert not open_to_all.needed
    assert open_to_all.identify((), "1.2.3.4") is None
    assert open_to_all.identify(("anything",), "1.2.3.4") is None


def test_right_wrong_and_missing_keys(clock: Clock) -> None:
    asked = authenticator(clock)
    found = asked.identify((KEY,), "1.2.3.4")
    assert found is not None
    assert found.name == "one"
    with pytest.raises(KeyMissing):
        asked.identify((), "1.2.3.4")
    for wrong in ("", KEY[:-1], KEY + "x", KEY.upper(), "\udcff"):
        with pytest.raises(AuthenticationFailed):
            asked.identify((wrong,), "1.2.3.4")


def test_one_right_key_among_several_is_enough(clock: Clock) -> None:
    found = authenticator(clock).identify(("stale", OTHER), "1.2.3.4")
    assert found is not None
    assert found.name == "two"


@pytest.mark.fault("A3")
def test_all_keys_are_compared_whole_whatever_was_presented(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[str, str]] = []

    def compare(one: str, other: str) -> bool:
        compared.append((one, other))
        return hmac.compare_digest(one, other)

    ring = Keyring([plain_key(KEY, "one"), plain_key(OTHER, "two")])
    monkeypatch.setattr(auth, "hmac", SimpleNamespace(compare_digest=compare))
    for presented in (KEY, OTHER, "wrong", KEY[:-1] + "x"):
        compared.clear()
        ring.find(presented)
        assert [len(one) + len(other) for one, other in compared] == [128, 128]  # hexadecimal digits of both


def wrong(asked: Authenticator, address: str, times: int = 1) -> None:
    for number in range(times):
        with pytest.raises(AuthenticationFailed):
            asked.identify((f"wrong-{number}",), address)


def test_ten_wrong_keys_in_a_minute_close_an_address_for_the_rest_of_it(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    asked = authenticator(clock)
    wrong(asked, "1.2.3.4", 9)
    clock.now += 20
    wrong(asked, "1.2.3.4")
    for key in (KEY, "wrong"):
        with pytest.raises(TooManyAttempts) as raised:
            asked.identify((key,), "1.2.3.4")
        assert raised.value.retry_after_s == 40
    assert asked.identify((KEY,), "1.2.3.5")
    assert [(record.message, record.__dict__["client"]) for record in caplog.records] == [
        ("auth.address_refused", "1.2.3.4")
    ]
    clock.now += 40
    assert asked.identify((KEY,), "1.2.3.4")


@pytest.mark.fault("A3")
def test_ten_thousand_wrong_keys_get_ten_tries_a_minute(clock: Clock) -> None:
    asked, tries = authenticator(clock), 0
    for number in range(10_000):  # at 50 a second: 200 seconds
        clock.now += 0.02
        try:
            asked.identify((f"guess-{number}",), "1.2.3.4")
        except TooManyAttempts:
            continue
        except AuthenticationFailed:
            tries += 1
    assert tries == 40


def test_a_key_that_is_known_from_an_address_goes_on_when_others_guess_there(clock: Clock) -> None:
    asked = authenticator(clock)
    assert asked.identify((KEY,), "1.2.3.4")
    wrong(asked, "1.2.3.4", 10)
    assert asked.identify((KEY,), "1.2.3.4")
    with pytest.raises(TooManyAttempts):
        asked.identify((OTHER,), "1.2.3.4")


def test_a_request_without_a_key_is_no_guess(clock: Clock) -> None:
    asked = authenticator(clock)
    for _ in range(20):
        with pytest.raises(KeyMissing):
            asked.identify((), "1.2.3.4")
    assert asked.identify((KEY,), "1.2.3.4")


def test_zero_failures_never_refuse(clock: Clock) -> None:
    asked = authenticator(clock, max_failures=0)
    wrong(asked, "1.2.3.4", 50)


def test_the_table_of_addresses_is_bounded(clock: Clock) -> None:
    lockout = Lockout(10, clock)
    for number in range(MAX_ADDRESSES + 100):
        lockout.note_failure(str(number))
        lockout.note_success(str(number), "key")
    assert len(lockout._failures) == len(lockout._known) == MAX_ADDRESSES
    assert not lockout.knows("0", "key")


@pytest.mark.parametrize(
    ("client", "network"),
    [
        ("1.2.3.4", "1.2.3.4"),
        ("::ffff:1.2.3.4", "1.2.3.4"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", ""),
        ("/run/a.sock", "/run/a.sock"),
    ],
)
def test_what_of_an_address_counts(client: str, network: str) -> None:
    assert network_of(client) == network


def test_a_key_that_is_made_while_the_daemon_runs_counts_at_once(file: KeyFile) -> None:
    ring = Keyring((), file)
    assert not ring.needed
    _, key = file.create("late", [Scope.ADMIN])
    assert ring.needed
    found = ring.find(key)
    assert found is not None
    assert found.scopes == {Scope.ADMIN}
    file.revoke("late")
    assert ring.find(key) is None
    assert ring.needed


def test_keys_stay_needed_when_their_file_is_gone(file: KeyFile) -> None:
    _, key = file.create("a", [])
    ring = Keyring((), file)
    file.path.unlink()
    assert ring.needed
    assert ring.find(key) is None


def test_an_empty_file_lets_nobody_in(file: KeyFile) -> None:
    file.create("a", [])
    file.revoke("a")
    assert Keyring((), file).needed


def test_a_file_that_breaks_keeps_the_keys_of_before(file: KeyFile, caplog: pytest.LogCaptureFixture) -> None:
    _, key = file.create("a", [])
    ring = Keyring((), file)
    file.path.write_text("nonsense")
    assert ring.find(key) is not None
    assert ring.find(key) is not None
    assert [record.message for record in caplog.records] == ["keys.not_read"]  # once, not for each request
    with pytest.raises(ConfigError):
        Keyring((), file)


def test_a_file_that_cannot_be_read_for_a_moment_is_read_with_the_next_request(
    file: KeyFile, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As while a virus scanner has it: a key that was taken back must not stay valid until the file changes again."""
    _, key = file.create("a", [])
    ring = Keyring((), file)
    file.revoke("a")

    def locked(_path: Path) -> object:
        raise PermissionError(13, "somebody has it")

    with monkeypatch.context() as patched:
        patched.setattr("kolosal.files.regular.open_regular", locked)
        for _ in range(3):
            assert ring.find(key) is not None
        assert ring.problem is not None
    assert [one.message for one in caplog.records] == ["keys.not_read"]
    assert ring.find(key) is None
    assert ring.problem is None


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no FIFOs in the file system")
def test_a_pipe_in_place_of_the_file_is_not_waited_for(file: KeyFile) -> None:
    assert sys.platform != "win32"  # for the type checker
    _, key = file.create("a", [])
    ring = Keyring((), file)
    file.path.unlink()
    os.mkfifo(file.path)
    assert ring.find(key) is not None
    assert ring.find("another") is None
    assert ring.problem is not None


def test_a_disk_that_is_silent_is_waited_for_once(file: KeyFile, monkeypatch: pytest.MonkeyPatch) -> None:
    _, key = file.create("a", [])
    ring = Keyring((), file)
    answers = threading.Event()
    waited: list[float] = []
    look_at = auth._look_at

    def silent(*given: Any) -> Any:
        answers.wait()
        return look_at(*given)

    def counted(futures: Any, timeout: float) -> Any:
        waited.append(timeout)
        return wait(futures, min(timeout, 0.01))

    with monkeypatch.context() as patched:
        patched.setattr(auth, "_look_at", silent)
        patched.setattr(auth, "wait", counted)
        for _ in range(3):
            assert ring.find(key) is not None
    assert [limit > 0 for limit in waited] == [True, False, False]
    assert ring.problem is not None
    file.revoke("a")
    answers.set()
    assert ring._looking is not None
    wait([ring._looking], 10)
    assert ring.find(key) is None
    assert ring.problem is None


def test_a_file_that_was_looked_at_a_moment_ago_is_looked_at_for_a_key_that_is_not_known(
    file: KeyFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where `kolosal keys create` was another process: this one knows of no change."""
    _, old = file.create("a", [])
    ring = Keyring((), file, look_every_s=3600)
    assert ring.find(old) is not None
    with monkeypatch.context() as patched:
        _, new = file.create("b", [])
        patched.setattr(KeyFile, "changes", ring._changes)
        assert ring.find(new) is not None
        file.revoke("a")
        patched.setattr(KeyFile, "changes", ring._changes)
        assert ring.find(old) is not None  # for a moment
    file.revoke("b")  # of our own
    assert ring.find(new) is None


def test_a_file_that_appears_broken_lets_nobody_in(file: KeyFile) -> None:
    ring = Keyring((), file)
    file.path.write_text("nonsense")
    assert ring.needed
