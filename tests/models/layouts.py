"""Folders as other programs make them, of a model file that is there: Ollama's store, Hugging Face's cache."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

MEDIA = "application/vnd.ollama.image."


def add_blob(store: Path, content: bytes) -> str:
    """A blob of Ollama's; its digest."""
    digest = hashlib.sha256(content).hexdigest()
    blob = store / "blobs" / f"sha256-{digest}"
    blob.parent.mkdir(parents=True, exist_ok=True)
    blob.write_bytes(content)
    return f"sha256:{digest}"


def add_manifest(store: Path, name: str, layers: Mapping[str, str]) -> Path:
    """A manifest, `HOST/NAMESPACE/NAME/TAG`; `layers` are digests by kind."""
    path = store / "manifests" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    listed = [{"mediaType": MEDIA + kind, "digest": digest, "size": 1} for kind, digest in layers.items()]
    config = {"mediaType": "application/vnd.docker.container.image.v1+json", "digest": "sha256:0", "size": 1}
    path.write_text(json.dumps({"schemaVersion": 2, "config": config, "layers": listed}))
    return path


def add_to_ollama(store: Path, name: str, model: Path, **more: str) -> str:
    """A model in Ollama's store with further layers by kind; the digest of its file."""
    digest = add_blob(store, model.read_bytes())
    layers = {kind: add_blob(store, text.encode()) for kind, text in more.items()}
    add_manifest(store, name, {"model": digest, **layers})
    return digest.removeprefix("sha256:")


def add_to_hub_cache(
    cache: Path, repository: str, revision: str, file: str, content: bytes, *, main: bool = True
) -> str:
    """A file of a revision as `huggingface_hub` keeps it, a link to a blob; the digest of the file."""
    folder = cache / f"models--{repository.replace('/', '--')}"
    digest = hashlib.sha256(content).hexdigest()
    blob = folder / "blobs" / digest
    blob.parent.mkdir(parents=True, exist_ok=True)
    blob.write_bytes(content)
    link = folder / "snapshots" / revision / file
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(blob)
    if main:
        ref = folder / "refs" / "main"
        ref.parent.mkdir(exist_ok=True)
        ref.write_text(revision)
    return digest
