"""Ollama's registry: a manifest, and layers by digest. They are kept in the same layout as Ollama's own store has.

Blocking, in the fetcher only.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from kolosal.downloads.address import parse_url
from kolosal.downloads.net import Reach, get
from kolosal.downloads.plan import DownloadPlan, OllamaManifest, PlannedFile
from kolosal.downloads.source import OllamaSource
from kolosal.errors import DownloadFailed, Forbidden, NotFound
from kolosal.files.atomic import write_file
from kolosal.paths import path_below

MODEL_LAYER = "application/vnd.ollama.image.model"

_HOST = "registry.ollama.ai"
"""In the names that Ollama leaves it out of, wherever they came from."""
_ACCEPT = "application/vnd.docker.distribution.manifest.v2+json"
_MAX_MANIFEST_BYTES = 4 * 1024 * 1024


class _Layer(BaseModel):
    model_config = ConfigDict(defer_build=True, frozen=True, extra="ignore")

    mediaType: Annotated[str, Field(max_length=200)]  # noqa: N815 - the registry's word
    digest: Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]
    size: Annotated[int, Field(ge=0, le=1 << 46)]


class _Manifest(BaseModel):
    model_config = ConfigDict(defer_build=True, frozen=True, extra="ignore")

    config: _Layer | None = None
    layers: Annotated[tuple[_Layer, ...], Field(max_length=1000)]


def plan_ollama(source: OllamaSource, registry: str, folder: Path) -> DownloadPlan:
    """What is to be fetched of a model. `folder` holds the layers and manifests of all models.

    Raises:
        NotFound: there is no such model.
        DownloadFailed: the registry does not answer, or says what cannot be.
    """
    base = parse_url(registry)
    repository = f"{base.text.rstrip('/')}/v2/{source.namespace}/{source.name}"
    text = _manifest(source, f"{repository}/manifests/{source.tag}", Reach.of(base, configured=True))
    try:
        manifest = _Manifest.model_validate_json(text)
    except ValidationError as exc:
        raise DownloadFailed(f"{base.authority} does not answer as Ollama's registry does") from exc
    models = [layer for layer in manifest.layers if layer.mediaType.startswith(MODEL_LAYER)]
    if not models:
        raise DownloadFailed(f"{source.text} holds no GGUF model")
    layers = {each.digest: each for each in (*manifest.layers, *filter(None, [manifest.config]))}
    blobs = folder / "blobs"
    files = {
        digest: PlannedFile(
            f"{repository}/blobs/{digest}",
            str(path_below(blobs, digest.replace(":", "-"))),
            layer.size,
            digest.removeprefix("sha256:"),
        )
        for digest, layer in layers.items()
    }
    place = path_below(folder / "manifests", f"{_HOST}/{source.namespace}/{source.name}/{source.tag}")
    return DownloadPlan(
        source=source.text,
        kind="ollama",
        name=source.short,
        quant="",
        files=tuple(files.values()),
        model_path=files[models[0].digest].path,
        ollama=OllamaManifest(str(place), text, source.short),
    )


def write_manifest(manifest: OllamaManifest) -> None:
    """Say that all layers of a model are there.

    Raises:
        OSError: it cannot be written.
    """
    write_file(Path(manifest.path), manifest.text.encode())


def _manifest(source: OllamaSource, url: str, reach: Reach) -> str:
    with get(parse_url(url), reach, {"Accept": _ACCEPT}) as response:
        where = response.url.authority
        if response.status in (401, 403):
            raise Forbidden(f"{where} does not let us have {source.short} without an account", code="gated")
        if response.status in (400, 404):
            raise NotFound(f"{where} has no model {source.short}", param="source", code="model_not_found")
        if response.status != 200:
            raise DownloadFailed(f"{where} answered HTTP {response.status} for {source.short}")
        data = response.read(_MAX_MANIFEST_BYTES)
    try:
        return data.decode()
    except UnicodeDecodeError as exc:
        raise DownloadFailed(f"{where} does not answer as Ollama's registry does") from exc
