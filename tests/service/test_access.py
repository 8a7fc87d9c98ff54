"""Whether a service's account can read what it is started from."""

from __future__ import annotations

import stat
import sys
from pathlib import Path, PureWindowsPath

import pytest

from kolosal.service.access import PathPart, chain_of, closed_to_others, within_a_profile

USERS = PureWindowsPath(r"C:\Users")


def test_the_first_part_that_is_closed_is_named() -> None:
    folders = [PathPart("/", stat.S_IFDIR | 0o755), PathPart("/root", stat.S_IFDIR | 0o700)]
    assert closed_to_others([*folders, PathPart("/root/x", stat.S_IFREG | 0o644)]) == "/root"
    assert closed_to_others([folders[0], PathPart("/x", stat.S_IFREG | 0o640)]) == "/x"
    assert (
        closed_to_others([folders[0], PathPart("/srv", stat.S_IFDIR | 0o711), PathPart("/x", 0o100644)])
        is None
    )


@pytest.mark.skipif(sys.platform == "win32", reason="permission bits are of POSIX")
def test_a_link_is_as_closed_as_what_it_leads_to(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir()
    (closed / "python").touch()
    closed.chmod(0o700)
    (tmp_path / "link").symlink_to(closed / "python")
    parts = [part for part in chain_of(tmp_path / "link") if part.path.startswith(str(tmp_path / ""))]
    assert closed_to_others([part for part in parts if part.path != str(tmp_path)]) == str(closed)


@pytest.mark.parametrize(
    ("path", "profile"),
    [
        (r"C:\Users\anna\AppData\Local\Programs\Python\python.exe", r"C:\Users\anna"),
        (r"c:\users\Anna\x", r"c:\users\Anna"),
        (r"C:\Users\Public\x", None),
        (r"C:\Program Files\Python313\python.exe", None),
        (r"D:\Users\anna\x", None),
    ],
)
def test_what_lies_in_a_users_profile_is_closed_on_windows(path: str, profile: str | None) -> None:
    found = within_a_profile(PureWindowsPath(path), USERS)
    assert (None if found is None else str(found)) == profile
