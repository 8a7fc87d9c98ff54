"""Kolosal: a model-manager daemon over llama.cpp. docs/architecture.md says where things are and what its words mean."""

from __future__ import annotations

__all__ = ["__version__"]

__version__ = "0.1.0"
