"""Files and vector stores, as the OpenAI clients know them."""

from __future__ import annotations

from starlette.routing import Route

from kolosal.routes.common.operation import with_v1
from kolosal.routes.documents import entries, file_batches, files, vector_stores

__all__ = ["routes"]

_STORE = "/vector_stores/{vector_store_id}"
_ENTRY = _STORE + "/files/{file_id}"
_BATCH = _STORE + "/file_batches/{batch_id}"


def routes() -> list[Route]:
    """The paths of this API, each with and without `/v1`."""
    return with_v1(
        Route("/files", files.upload_file, methods=["POST"]),
        Route("/files", files.list_files),
        Route("/files/{file_id}", files.show_uploaded_file),
        Route("/files/{file_id}", files.delete_file, methods=["DELETE"]),
        Route("/files/{file_id}/content", files.file_content),
        Route("/vector_stores", vector_stores.create_vector_store, methods=["POST"]),
        Route("/vector_stores", vector_stores.list_vector_stores),
        Route(_STORE, vector_stores.show_vector_store),
        Route(_STORE, vector_stores.change_vector_store, methods=["POST"]),
        Route(_STORE, vector_stores.delete_vector_store, methods=["DELETE"]),
        Route(_STORE + "/search", vector_stores.search_vector_store, methods=["POST"]),
        Route(_STORE + "/files", entries.add_entry, methods=["POST"]),
        Route(_STORE + "/files", entries.list_entries),
        Route(_ENTRY, entries.show_entry),
        Route(_ENTRY, entries.change_entry, methods=["POST"]),
        Route(_ENTRY, entries.delete_entry, methods=["DELETE"]),
        Route(_ENTRY + "/content", entries.entry_content),
        Route(_STORE + "/file_batches", file_batches.create_file_batch, methods=["POST"]),
        Route(_BATCH, file_batches.show_file_batch),
        Route(_BATCH + "/cancel", file_batches.cancel_file_batch, methods=["POST"]),
        Route(_BATCH + "/files", file_batches.list_batch_files),
    )
