"""FAISS without types: its stubs lack most of what is used here, or give it other names."""

from __future__ import annotations

import importlib
from typing import Any, TypeAlias

faiss: Any = importlib.import_module("faiss")
FaissIndex: TypeAlias = Any
"""An index of FAISS; which one is said where it is used."""
