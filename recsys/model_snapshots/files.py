"""Files of a model snapshot: durable on the way out, checked on the way in."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import crc32c
import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load

from recsys.errors import SnapshotError

Arrays = Mapping[str, NDArray[Any]]


def write_file(path: Path, content: bytes) -> int:
    """Write a file durably; its checksum."""
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    return int(crc32c.crc32c(content))


def sync_folder(path: Path) -> None:
    """Make the names in a folder durable, as fsync makes the bytes of a file."""
    folder = os.open(path, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def read_checked(file: Path, checksum: int | None) -> bytes:
    """The bytes of a file. Raises SnapshotError unless they have the checksum."""
    try:
        content = file.read_bytes()
    except OSError as error:
        raise SnapshotError(f"{file}: cannot be read ({error}); use another snapshot") from error
    found = int(crc32c.crc32c(content))
    if found != checksum:
        raise SnapshotError(f"{file}: checksum {found:08x} differs from its manifest; use another snapshot")
    return content


def read_arrays(file: Path, checksum: int | None) -> dict[str, NDArray[Any]]:
    """The arrays in a file. Raises SnapshotError unless it has the checksum."""
    content = read_checked(file, checksum)
    try:
        arrays: dict[str, NDArray[Any]] = load(content)
    except SafetensorError as error:
        raise SnapshotError(f"{file}: cannot be read ({error}); use another snapshot") from error
    return {name: np.ascontiguousarray(array) for name, array in arrays.items()}
