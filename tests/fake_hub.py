"""Hugging Face's hub on loopback, as huggingface_hub knows it: repositories, files behind a CDN, gates, searches.

`python -m tests.fake_hub FILE.gguf` serves this file as `org/tiny-GGUF`, and says what to set in the environment.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from tests.file_server import FileServer, Handler, ServedFile

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Repository:
    """One repository."""

    files: dict[str, ServedFile] = field(default_factory=dict)
    gated: bool = False
    private: bool = False
    commit: str = COMMIT
    downloads: int = 0


class FakeHub(FileServer):
    """The hub; content comes from `cdn`, another server, by redirects."""

    def __init__(self, port: int = 0) -> None:
        super().__init__(port)
        self.cdn = FileServer()
        self.repositories: dict[str, Repository] = {}
        self.token = "hf_thetokenofthetests"
        self.status: int | None = None
        """Answered to everything, where it is set."""

    def add(self, repo: str, **files: bytes) -> Repository:
        """A repository of these files; `__` in a name stands for a slash, and `.gguf` is added."""
        served = {f"{name.replace('__', '/')}.gguf": ServedFile(data) for name, data in files.items()}
        return self.add_files(repo, served)

    def add_files(self, repo: str, files: dict[str, ServedFile]) -> Repository:
        """A repository of these files by name."""
        for file in files.values():
            self.cdn.files[f"/{file.sha256}"] = file
        self.repositories[repo] = Repository(files)
        return self.repositories[repo]

    def __enter__(self) -> FakeHub:
        self.cdn.__enter__()
        super().__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        super().__exit__()
        self.cdn.__exit__()

    def answer(self, handler: Handler, path: str, query: str) -> bool:
        if self.status is not None:
            handler.send(self.status)
        elif path == "/api/models":
            handler.send(200, self._found(parse_qs(query)))
        elif path.startswith("/api/models/"):
            self._answer_info(handler, path.removeprefix("/api/models/"))
        elif "/resolve/" in path:
            self._answer_file(handler, path)
        else:
            return False
        return True

    def _found(self, query: dict[str, list[str]]) -> list[dict[str, Any]]:
        words = query.get("search", [""])[0].lower()
        return [
            {"id": name, "modelId": name, "downloads": each.downloads, "likes": 1, "gated": each.gated}
            for name, each in self.repositories.items()
            if words in name.lower()
        ]

    def _answer_info(self, handler: Handler, rest: str) -> None:
        name, _, revision = rest.partition("/revision/")
        repository = self._repository(handler, name)
        if repository is None:
            return
        if revision not in ("", "main", repository.commit):
            handler.send(404, {"error": "no"}, {"X-Error-Code": "RevisionNotFound"})
            return
        siblings = [
            {
                "rfilename": file_name,
                "size": len(file.data),
                "blobId": "0" * 40,
                "lfs": {"sha256": file.sha256, "size": len(file.data), "pointerSize": 100},
            }
            for file_name, file in repository.files.items()
        ]
        handler.send(
            200,
            {
                "id": name,
                "modelId": name,
                "sha": repository.commit,
                "gated": repository.gated,
                "siblings": siblings,
            },
        )

    def _answer_file(self, handler: Handler, path: str) -> None:
        name, _, rest = path.strip("/").partition("/resolve/")
        revision, _, file_name = rest.partition("/")
        repository = self._repository(handler, name)
        if repository is None:
            return
        if repository.gated and not self._has_token(handler):
            handler.send(403, {"error": "gated"}, {"X-Error-Code": "GatedRepo"})
            return
        file = repository.files.get(file_name)
        if file is None or revision not in ("main", repository.commit):
            handler.send(404, {"error": "no"}, {"X-Error-Code": "EntryNotFound"})
            return
        handler.send(
            302,
            headers={
                "Location": f"{self.cdn.url}/{file.sha256}?X-Signature=secret",
                "X-Repo-Commit": repository.commit,
                "X-Linked-Etag": f'"{file.sha256}"',
                "X-Linked-Size": str(len(file.data)),
            },
        )

    def _repository(self, handler: Handler, name: str) -> Repository | None:
        repository = self.repositories.get(name)
        if repository is None or (repository.private and not self._has_token(handler)):
            handler.send(401, {"error": "no"}, {"X-Error-Code": "RepoNotFound"})
            return None
        return repository

    def _has_token(self, handler: Handler) -> bool:
        return handler.headers.get("Authorization") == f"Bearer {self.token}"


if __name__ == "__main__":
    hub = FakeHub()
    model = Path(sys.argv[1])
    hub.add_files(
        "org/tiny-GGUF",
        {f"tiny-{quant}.gguf": ServedFile(model.read_bytes()) for quant in sys.argv[2:] or ["Q4_K_M"]},
    )
    with hub:
        sys.stdout.write(f"HF_ENDPOINT={hub.url}\n")
        sys.stdout.flush()
        sys.stdin.read()
