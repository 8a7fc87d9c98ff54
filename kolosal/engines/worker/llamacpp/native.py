"""llama.cpp's C API, without what llama-cpp-python builds on it.

Its package would import a whole second stack (chat formats, caches in SQLite, pickling, multiprocessing): 5 MiB and 0.1 s of
each worker, for classes that are not used here.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from types import ModuleType
from typing import TYPE_CHECKING

_PACKAGE = "llama_cpp"

if TYPE_CHECKING:
    import llama_cpp.llama_cpp as native
else:

    def _import_native() -> ModuleType:
        """The module with the C functions. Its package is made, but its own code is not run.

        Raises:
            ImportError: llama-cpp-python is not installed.
        """
        if _PACKAGE in sys.modules:  # whole, in a process that is no worker
            return importlib.import_module(f"{_PACKAGE}.{_PACKAGE}")
        spec = importlib.util.find_spec(_PACKAGE)
        if spec is None:
            raise ImportError(f"No module named '{_PACKAGE}'", name=_PACKAGE)
        package = importlib.util.module_from_spec(spec)
        sys.modules[_PACKAGE] = package
        try:
            module = importlib.import_module(f"{_PACKAGE}.{_PACKAGE}")
        except BaseException:
            del sys.modules[_PACKAGE]
            raise
        package.__getattr__ = lambda name: getattr(
            module, name
        )  # llguidance asks the package for the functions
        return module

    native = _import_native()

__all__ = ["native"]
