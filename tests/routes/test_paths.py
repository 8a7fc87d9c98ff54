"""`model_path` to the one file it means, or a code and a sentence."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from kolosal.config.models import ModelEntry
from kolosal.engines.parameters import LoadingParameters
from kolosal.errors import ModelFileError
from kolosal.paths import Anywhere, ModelRoots, Roots, engine_config, is_network_path, model_file
from tests.gguf_files import gguf
from tests.tiny_gguf import N_CTX_TRAIN, write_tiny_gguf

CONTENT = b"GGUF\x03\x00\x00\x00"
"""Enough for the path; `tests/test_gguf.py` looks at what is in the file."""


def make(directory: Path, *names: str) -> None:
    for name in names:
        (directory / name).write_bytes(CONTENT)


def refusal(path: object) -> ModelFileError:
    with pytest.raises(ModelFileError) as caught:
        model_file(str(path))
    assert caught.value.param == "model_path"
    assert len(caught.value.message) < 400
    return caught.value


def test_a_file_is_itself(tmp_path: Path) -> None:
    make(tmp_path, "a.gguf", "B.GGUF")
    assert model_file(str(tmp_path / "a.gguf")) == tmp_path / "a.gguf"
    assert model_file(str(tmp_path / "B.GGUF")) == tmp_path / "B.GGUF"


def test_a_relative_path_becomes_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path, "a.gguf")
    monkeypatch.chdir(tmp_path)
    assert model_file("a.gguf") == tmp_path / "a.gguf"


@pytest.mark.parametrize("names", [
    ["only.gguf"], ["only.gguf", "mmproj-model-f16.gguf", "readme.md"],
    ["only-00001-of-00003.gguf", "only-00002-of-00003.gguf", "only-00003-of-00003.gguf"],
])  # fmt: skip
def test_a_directory_with_one_model_is_that_model(tmp_path: Path, names: list[str]) -> None:
    make(tmp_path, *names)
    assert model_file(str(tmp_path)) == tmp_path / names[0]


def test_a_directory_with_several_models_names_them(tmp_path: Path) -> None:
    make(tmp_path, *(f"m{i:02}.gguf" for i in range(20)))
    error = refusal(tmp_path)
    assert error.code == "model_file_ambiguous"
    assert "holds 20 models ('m00.gguf', 'm01.gguf'" in error.message
    assert "and 12 more" in error.message


@pytest.mark.parametrize(
    "path", ["", "a\0b.gguf", "/no/such/file.gguf", "~/x.gguf", "x" * 100_000, "/" + "y/" * 5000]
)
def test_what_does_not_exist_is_not_found(path: str) -> None:
    assert refusal(path).code == "model_path_not_found"


def test_a_message_shows_a_path_of_windows_as_it_is_written() -> None:
    assert r"'C:\Models\tiny.gguf' does not exist" in refusal(r"C:\Models\tiny.gguf").message


def test_a_directory_without_a_model(tmp_path: Path) -> None:
    make(tmp_path, "mmproj-a.gguf", "a-00002-of-00002.gguf")
    (tmp_path / "d.gguf").mkdir()
    assert refusal(tmp_path).code == "model_file_not_found"


def test_what_is_no_gguf_file(tmp_path: Path) -> None:
    make(tmp_path, "a.bin", "a-00002-of-00003.gguf")
    (tmp_path / "text.gguf").write_text("I am a text")
    (tmp_path / "empty.gguf").touch()
    messages = {
        "a.bin": "is not a .gguf file",
        "text.gguf": "has the name of a GGUF model, but is something else",
        "empty.gguf": "is empty",
        "a-00002-of-00003.gguf": "is part 2 of 3 of a model: give the path of part 1",
    }
    for name, message in messages.items():
        error = refusal(tmp_path / name)
        assert error.code == "invalid_model_format"
        assert message in error.message


@pytest.mark.fault("A1")
@pytest.mark.skipif(sys.platform == "win32", reason="POSIX devices, pipes and modes")
def test_devices_and_pipes_are_refused_unopened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.gguf")
    (tmp_path / "null.gguf").symlink_to("/dev/null")
    for path in (tmp_path / "pipe.gguf", tmp_path / "null.gguf", "/dev/zero"):
        assert refusal(path).code == "invalid_model_path_type"


@pytest.mark.skipif(sys.platform == "win32", reason="links need a privilege")
def test_links_are_followed_and_kept(tmp_path: Path) -> None:
    make(tmp_path, "blob")
    (tmp_path / "link.gguf").symlink_to(tmp_path / "blob")
    (tmp_path / "loop.gguf").symlink_to(tmp_path / "loop.gguf")
    assert model_file(str(tmp_path / "link.gguf")) == tmp_path / "link.gguf"
    assert refusal(tmp_path / "loop.gguf").code == "model_path_not_found"


def test_a_tilde_is_the_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("USERPROFILE", str(home))
    make(home, "a.gguf")
    assert model_file("~/a.gguf") == home / "a.gguf"
    assert model_file("~/a.gguf", (home,)) == home / "a.gguf"
    assert refusal("~/b.gguf").code == "model_path_not_found"
    assert refusal("~nobody-of-that-name/a.gguf").code == "model_path_not_found"
    with pytest.raises(ModelFileError, match="not in a folder"):
        model_file("~/a.gguf", (tmp_path / "models",))


@pytest.mark.parametrize("n_parallel", [1, 4])
def test_a_window_of_0_is_the_models_own(tmp_path: Path, n_parallel: int) -> None:
    write_tiny_gguf(tmp_path / "m.gguf")
    given = LoadingParameters(n_ctx=0, n_parallel=n_parallel)
    config = engine_config("m", str(tmp_path / "m.gguf"), given, roots=Anywhere.ON_THIS_MACHINE)
    assert config.parameters == replace(given, n_ctx=N_CTX_TRAIN)
    with pytest.raises(
        ModelFileError, match=f"kv_pool_tokens must be at least n_ctx \\({N_CTX_TRAIN}\\), but is 5"
    ) as caught:
        engine_config("m", str(tmp_path / "m.gguf"), replace(given, kv_pool_tokens=5), roots=Anywhere.AT_ALL)
    assert caught.value.param == "kv_pool_tokens"


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="root may read everything")
def test_what_may_not_be_read(tmp_path: Path) -> None:
    make(tmp_path, "a.gguf")
    (tmp_path / "a.gguf").chmod(0)
    assert refusal(tmp_path / "a.gguf").code == "model_path_access_denied"


def test_what_fails_to_open_is_access_denied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path, "a.gguf")

    def denied(*_args: object, **_kwargs: object) -> None:
        raise PermissionError

    monkeypatch.setattr("kolosal.paths.open_regular", denied)
    assert refusal(tmp_path / "a.gguf").code == "model_path_access_denied"
    monkeypatch.setattr(Path, "iterdir", denied)
    assert refusal(tmp_path).code == "model_path_access_denied"
    monkeypatch.setattr(Path, "stat", denied)
    assert refusal(tmp_path / "a.gguf").code == "model_path_access_denied"


@pytest.mark.parametrize(
    ("path", "network"),
    [
        (r"\\host\share\a.gguf", True),
        ("//host/share/a.gguf", True),
        (r"\\?\C:\a.gguf", True),
        (r"\\.\pipe\a", True),
        (r"C:\models\a.gguf", False),
        (r"models\a.gguf", False),
        ("/models/a.gguf", False),
    ],
)
def test_shares_of_windows_are_known(path: str, network: bool) -> None:
    assert is_network_path(path) is network


class TestConfined:
    """A client may load what is in the folders that models come from, and learns nothing of what is not."""

    @pytest.fixture
    def root(self, tmp_path: Path) -> Path:
        root = tmp_path / "models"
        (root / "sub").mkdir(parents=True)
        for name in ("a.gguf", "sub/b.gguf", "../outside.gguf"):
            (root / name).write_bytes(gguf())
        return root

    @staticmethod
    def refusal(path: object, roots: Roots) -> str:
        with pytest.raises(ModelFileError) as caught:
            model_file(str(path), roots)
        error = caught.value
        assert (error.code, error.param) == ("model_path_access_denied", "model_path")
        return error.message

    def test_what_is_inside_is_found(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        roots = (Path("/srv/models"), root)
        assert model_file(str(root / "a.gguf"), roots) == root / "a.gguf"
        assert model_file(str(root / "sub"), roots) == root / "sub" / "b.gguf"
        monkeypatch.chdir(root)
        assert model_file("a.gguf", roots) == root / "a.gguf"

    @pytest.mark.fault("A1")
    def test_all_else_is_refused_in_one_sentence(self, root: Path) -> None:
        outside = [
            root.parent / "outside.gguf", root.parent / "no-such.gguf", root.parent, "/etc/passwd", "/no/such.gguf", "/",
            root / ".." / "outside.gguf", root / "sub" / ".." / "a.gguf", f"{root}x/a.gguf", "../../etc/passwd", "a.gguf",
            "/dev/zero", "/proc/self/mem", r"\\host\share\a.gguf", r"C:a.gguf", "NUL", "~/a.gguf", "file:///etc/passwd",
            f"{root}/../outside.gguf", f"{root}//../outside.gguf", f"{root}/./../outside.gguf",
        ]  # fmt: skip
        assert len({self.refusal(path, (root,)) for path in outside}) == 1

    def test_no_folder_means_no_model(self, root: Path) -> None:
        self.refusal(root / "a.gguf", ())

    def test_a_nul_is_no_path(self, root: Path) -> None:
        with pytest.raises(ModelFileError):
            model_file(f"{root}/a.gguf\0/../../outside.gguf", (root,))

    @pytest.mark.fault("A1")
    def test_nothing_outside_is_touched(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        touched: list[str] = []

        def noting(look: Callable[..., object]) -> Callable[..., object]:
            def note(path: object, *args: object, **named: object) -> object:
                if str(path).startswith(str(root.parent / "outside")):  # other threads look at files too
                    touched.append(str(path))
                return look(path, *args, **named)

            return note

        for name in ("stat", "lstat", "open"):
            monkeypatch.setattr(os, name, noting(getattr(os, name)))
        self.refusal(root.parent / "outside.gguf", (root,))
        assert touched == []

    @pytest.mark.fault("A1")
    @pytest.mark.skipif(sys.platform == "win32", reason="links need a privilege")
    def test_links_out_are_refused_and_links_within_are_not(self, root: Path) -> None:
        (root / "out.gguf").symlink_to(root.parent / "outside.gguf")
        (root / "nowhere.gguf").symlink_to(root.parent / "no-such.gguf")
        (root / "folder").symlink_to(root.parent)
        (root / "loop.gguf").symlink_to(root / "loop.gguf")
        (root / "in.gguf").symlink_to(root / "sub" / "b.gguf")
        (root / "only").mkdir()
        (root / "only" / "c.gguf").symlink_to(root.parent / "outside.gguf")
        names = ["out.gguf", "nowhere.gguf", "folder", "folder/outside.gguf", "loop.gguf", "only"]
        assert len({self.refusal(root / name, (root,)) for name in names}) == 1
        assert model_file(str(root / "in.gguf"), (root,)) == root / "in.gguf"
        (root.parent / "alias").symlink_to(root)
        assert model_file(str(root.parent / "alias" / "a.gguf"), (root.parent / "alias",)).name == "a.gguf"

    @pytest.mark.skipif(sys.platform == "win32", reason="POSIX pipes")
    def test_pipes_inside_are_refused_unopened(self, root: Path) -> None:
        assert sys.platform != "win32"  # for the type checker
        os.mkfifo(root / "pipe.gguf")
        with pytest.raises(ModelFileError, match="neither a file nor a directory"):
            model_file(str(root / "pipe.gguf"), (root,))

    def test_a_draft_model_is_confined_too(self, root: Path) -> None:
        parameters = LoadingParameters(draft_model_path=str(root.parent / "outside.gguf"))
        with pytest.raises(ModelFileError) as caught:
            engine_config("x", str(root / "a.gguf"), parameters, roots=(root,))
        assert (caught.value.param, caught.value.code) == ("draft_model_path", "model_path_access_denied")

    def test_which_folders_count(self, root: Path) -> None:
        known = [
            engine_config("a", str(root / "a.gguf"), LoadingParameters(), roots=Anywhere.AT_ALL),
            engine_config("b", str(root / "sub" / "b.gguf"), LoadingParameters(), roots=Anywhere.AT_ALL),
        ]
        entries = [ModelEntry(id=each.engine_id, path=each.model_path) for each in known]
        entries.append(ModelEntry(id="c", path=str(root / "folder")))
        assert ModelRoots.of((), entries).allowed(keys_needed=False) is Anywhere.ON_THIS_MACHINE
        assert ModelRoots.of((), entries).allowed(keys_needed=True) == (root, root / "sub", root / "folder")
        assert ModelRoots.of((), ()).allowed(keys_needed=True) == ()
        given = ModelRoots.of((f"{root}/x/../sub",), entries)
        assert given.allowed(keys_needed=True) == given.allowed(keys_needed=False) == (root / "sub",)
