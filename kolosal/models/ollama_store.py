"""The store of Ollama: manifests that say which blobs a model is made of, read as they are. Nothing is copied."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import orjson

from kolosal.files.regular import read_file
from kolosal.models.entry import LAYERS, LibraryModel, Source
from kolosal.models.file_version import FileVersion
from kolosal.models.names import usable
from kolosal.models.removal import remove_files
from kolosal.models.stores import Found

FETCHED_FOLDER = "ollama"
"""In the first folder of models: what is fetched of Ollama's registry, in the layout of its store."""

_MAX_MANIFEST_BYTES = 1024 * 1024
_MAX_MANIFESTS = 10_000

_MEDIA_TYPE = "application/vnd.ollama.image."
_DIGEST = re.compile(r"sha256:([0-9a-f]{64})")
_ANY_DIGEST = re.compile(rb"sha256[:-]([0-9a-f]{64})")
_HOST, _NAMESPACE = "registry.ollama.ai", "library"
"""Parts of a name that Ollama leaves out."""
_HUBS = ("hf.co", "huggingface.co")
"""Hosts whose models have the names they have on the hub."""


@dataclass(frozen=True, slots=True)
class OllamaStore:
    """A folder with `manifests` and `blobs`: a model has the name it has in Ollama."""

    folder: Path
    source: Source = "ollama"

    def scan(self) -> list[Found]:
        """See `Store`."""
        return [self._model(path) for path in self._manifests()[:_MAX_MANIFESTS]]

    def remove(self, model: LibraryModel) -> int:
        """See `Store`: the manifest, and the blobs that no other one has."""
        if model.manifest is None:
            return 0
        mine = _digests_of(model.manifest)
        remove_files([model.manifest], self.folder / "manifests")
        others = {digest for manifest in self._manifests() for digest in _digests_of(manifest)}
        blobs = [self._blob(digest) for digest in mine - others]
        return remove_files((blob for blob in blobs if blob.exists()), self.folder)

    def _manifests(self) -> list[Path]:
        """Files of the form HOST/NAMESPACE/NAME/TAG."""
        paths = (self.folder / "manifests").glob("*/*/*/*")
        return sorted(path for path in paths if path.is_file() and not path.name.startswith("."))

    def _model(self, manifest: Path) -> Found:
        name = usable(_name_of(*manifest.relative_to(self.folder / "manifests").parts))
        file = FileVersion.of(manifest)
        added_at = file.mtime_ns / 1e9
        try:
            layers = [*_layers(orjson.loads(read_file(manifest, _MAX_MANIFEST_BYTES)))]
            weights = self._weights(layers)
        except (OSError, ValueError) as exc:
            reason = exc.strerror if isinstance(exc, OSError) else str(exc)
            error = f"Ollama's manifest of {name!r} cannot be used: {reason}"
            return Found(name, (file,), added_at, error=error, manifest=manifest)
        projector = next((self._blob(digest) for kind, digest in layers if kind == "projector"), None)
        return Found(
            name,
            (weights,),
            added_at,
            None if projector is None or not projector.is_file() else FileVersion.of(projector),
            weights.path.name.removeprefix("sha256-"),
            layers=tuple((kind, self._blob(digest)) for kind, digest in layers if kind in LAYERS),
            manifest=manifest,
        )

    def _weights(self, layers: Sequence[tuple[str, str]]) -> FileVersion:
        """The file of the weights.

        Raises:
            ValueError: there is none, or it cannot be used alone.
        """
        models = [digest for kind, digest in layers if kind == "model"]
        if any(kind == "adapter" for kind, _ in layers):
            raise ValueError("it has an adapter, which Kolosal does not load")
        if len(models) != 1:
            raise ValueError(f"it has {len(models) or 'no'} GGUF files, and one is needed")
        blob = self._blob(models[0])
        try:
            return FileVersion.of(blob)
        except OSError:
            raise ValueError(f"its file blobs/{blob.name[:15]}… is missing") from None

    def _blob(self, digest: str) -> Path:
        return self.folder / "blobs" / f"sha256-{digest}"


def _digests_of(manifest: Path) -> set[str]:
    """All digests that a manifest names, also a damaged one.

    Raises:
        OSError: it cannot be read.
    """
    return {found.decode() for found in _ANY_DIGEST.findall(read_file(manifest, _MAX_MANIFEST_BYTES))}


def _name_of(host: str, namespace: str, name: str, tag: str) -> str:
    """As Ollama shows it; without the tag that says nothing."""
    parts = [part for part, left_out in ((host, _HOST), (namespace, _NAMESPACE)) if part != left_out]
    if host in _HUBS:
        parts = [namespace]
    elif host != _HOST:
        parts = [host, namespace]
    return "/".join((*parts, name if tag == "latest" else f"{name}:{tag}"))


def _layers(manifest: object) -> Iterator[tuple[str, str]]:
    """Kinds and digests of what a manifest lists.

    Raises:
        ValueError: it is none.
    """
    listed = manifest.get("layers") if isinstance(manifest, Mapping) else None
    for layer in listed if isinstance(listed, list) else (None,):
        kind, digest = (
            (layer.get("mediaType"), layer.get("digest")) if isinstance(layer, Mapping) else (None, None)
        )
        if (
            not isinstance(kind, str)
            or not isinstance(digest, str)
            or not (found := _DIGEST.fullmatch(digest))
        ):
            raise ValueError("a layer of it has no digest")
        yield kind.removeprefix(_MEDIA_TYPE), found[1]
