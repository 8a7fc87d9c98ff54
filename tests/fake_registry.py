"""Ollama's registry on loopback: manifests, and blobs behind a CDN.

`python -m tests.fake_registry FILE.gguf` serves this file as `tiny`, and says what to set in the environment.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

from tests.file_server import FileServer, Handler, ServedFile

_MEDIA = "application/vnd.ollama.image."


class FakeRegistry(FileServer):
    """The registry; blobs come from `cdn`, another server, by redirects."""

    def __init__(self, port: int = 0) -> None:
        super().__init__(port)
        self.cdn = FileServer()
        self.manifests: dict[str, bytes] = {}

    def add(self, name: str, tag: str, model: bytes | ServedFile, **layers: str) -> ServedFile:
        """A model; `layers` by what Ollama calls them: `template`, `system`, `params`."""
        served = model if isinstance(model, ServedFile) else ServedFile(model)
        blobs = {"model": served} | {kind: ServedFile(text.encode()) for kind, text in layers.items()}
        config = ServedFile(json.dumps({"model_format": "gguf"}).encode())
        for blob in (config, *blobs.values()):
            self.cdn.files[f"/blobs/{blob.sha256}"] = blob
        self.manifests[f"/v2/{name if '/' in name else 'library/' + name}/manifests/{tag}"] = json.dumps(
            {
                "schemaVersion": 2,
                "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
                "config": _layer("application/vnd.docker.container.image.v1+json", config),
                "layers": [_layer(_MEDIA + kind, blob) for kind, blob in blobs.items()],
            }
        ).encode()
        return served

    def __enter__(self) -> FakeRegistry:
        self.cdn.__enter__()
        super().__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        super().__exit__()
        self.cdn.__exit__()

    def answer(self, handler: Handler, path: str, query: str) -> bool:
        if path in self.manifests:
            handler.send(200, self.manifests[path])
            return True
        _, separator, digest = path.partition("/blobs/sha256:")
        if separator:
            handler.send(307, headers={"Location": f"{self.cdn.url}/blobs/{digest}?sig=secret"})
        return bool(separator)


def _layer(media_type: str, blob: ServedFile) -> dict[str, object]:
    digest = hashlib.sha256(blob.data).hexdigest()
    return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(blob.data)}


if __name__ == "__main__":
    registry = FakeRegistry()
    registry.add("tiny", "latest", Path(sys.argv[1]).read_bytes(), system="You are tiny.")
    with registry:
        sys.stdout.write(f"KOLOSAL_DOWNLOADS_OLLAMA_REGISTRY={registry.url}\n")
        sys.stdout.flush()
        sys.stdin.read()
