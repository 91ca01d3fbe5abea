"""Files of numbers as arrays that are read a piece at a time: memory maps, whatever the format.

.npy, stored members of .npz, .safetensors and Arrow's uncompressed files are mapped as they lie.
What has to be decoded (compressed .npz, .csv, .parquet) is decoded once, a piece at a time, into a
temporary file without a name, which is mapped in their place. Nothing is ever unpickled.
"""

from __future__ import annotations

import io
import json
import mmap
import struct
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from xent.evaluation import checks, processes

PIECE = 1 << 22  # bytes that are decoded at a time
SUFFIXES = (".npy", ".npz", ".safetensors", ".csv", ".tsv", ".parquet", ".arrow")
DTYPES = {
    **{"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I16": "<i2"},
    **{"I8": "i1", "U8": "u1", "U16": "<u2", "U32": "<u4", "U64": "<u8", "BOOL": "?"},
    "BF16": "<u2",
}


@dataclass(frozen=True)
class Numbers:
    """An array in a file: its name for messages, and the array, which is mapped where it can be."""

    name: str
    array: np.ndarray
    bfloat16: bool = False  # the array holds their bits as uint16
    mapped: mmap.mmap | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        return self.array.shape

    @property
    def dtype(self) -> str:
        return "bfloat16" if self.bfloat16 else str(self.array.dtype)

    def release(self, part: np.ndarray | None) -> None:
        """Let the system take back the memory of a part that has been read, or of the whole."""
        if self.mapped is None or not hasattr(self.mapped, "madvise"):
            return
        if part is None:
            self.mapped.madvise(mmap.MADV_DONTNEED)
            return
        first = part.__array_interface__["data"][0] - _start(self.mapped)
        first -= first % mmap.PAGESIZE
        length = min(part.nbytes + mmap.PAGESIZE, len(self.mapped) - first)
        self.mapped.madvise(mmap.MADV_DONTNEED, first, length)


def opened(function: str, given: Any, column: bool = False) -> Numbers:
    """The numbers of an array, or of a file: PATH, PATH:KEY or - for text on stdin.

    `column` takes the one column of a table; otherwise all of a table's columns are the classes.
    """
    if not isinstance(given, (str, Path)):
        return _given(function, given)
    name = str(given)
    if name == "-":
        from xent.evaluation import texts

        count = processes.world()[1]
        if count > 1:
            has, expected = f"{count} processes that would share it", "a file, which each can read"
            return checks.unreadable(function, "stdin", has, expected)
        return spooled("stdin", *texts.read(function, "stdin", sys.stdin.buffer, b","))
    path, key = split(name)
    if not path.is_file():
        return checks.missing(function, name)
    reader = {
        ".npy": _npy,
        ".npz": _npz,
        ".safetensors": _safetensors,
        ".csv": _text,
        ".tsv": _text,
        ".parquet": _table,
        ".arrow": _table,
    }.get(path.suffix.lower())
    if reader is None:
        expected = f"a name that ends in {', '.join(SUFFIXES)}"
        return checks.unreadable(function, name, f"suffix {path.suffix!r}", expected)
    return reader(function, path, key, column)


def members(path: Any) -> set[str]:
    """The names of the arrays of a .npz; none for any other file."""
    if not isinstance(path, (str, Path)) or not str(path).endswith(".npz"):
        return set()
    try:
        with zipfile.ZipFile(path) as archive:
            return {name.removesuffix(".npy") for name in archive.namelist()}
    except (OSError, zipfile.BadZipFile):
        return set()


def spooled(name: str, dtype: Any, pieces: Iterator[np.ndarray], width: int | None) -> Numbers:
    """Decoded pieces (n,) or (n, width), kept in a temporary file that has no name."""
    with tempfile.TemporaryFile() as file:
        rows = 0
        for piece in pieces:
            file.write(np.ascontiguousarray(piece, dtype=dtype).tobytes())
            rows += len(piece)
        file.flush()
        shape = (rows,) if width is None else (rows, width)
        return _mapped(name, file, np.dtype(dtype), shape, 0)


def _given(function: str, given: Any) -> Numbers:
    array = given.detach() if hasattr(given, "detach") else given
    if str(getattr(array, "dtype", "")) == "torch.bfloat16":
        array = array.float()
    array = np.asarray(array)
    checks.numeric(function, "an array", array.dtype, "biufUS", "numbers")
    return Numbers("array", array)


def split(name: str) -> tuple[Path, str | None]:
    """The path and the key of PATH:KEY."""
    if Path(name).is_file():
        return Path(name), None
    path, colon, key = name.rpartition(":")
    return (Path(path), key) if colon and Path(path).suffix else (Path(name), None)


def _mapped(
    name: str,
    file: Any,
    dtype: np.dtype,
    shape: tuple[int, ...],
    offset: int,
    fortran: bool = False,
    bfloat16: bool = False,
) -> Numbers:
    count = int(np.prod(shape, dtype=np.int64))
    if not count:
        return Numbers(name, np.empty(shape, dtype), bfloat16)
    mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    flat = np.frombuffer(mapped, dtype, count, offset)
    array = flat.reshape(shape[::-1]).T if fortran else flat.reshape(shape)
    return Numbers(name, array, bfloat16, mapped)


def _start(mapped: mmap.mmap) -> int:
    return np.frombuffer(mapped, np.uint8, 1).__array_interface__["data"][0]


def _header(function: str, name: str, file: BinaryIO) -> tuple[tuple[int, ...], bool, np.dtype]:
    try:
        version = np.lib.format.read_magic(file)
        read = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }[version]
        shape, fortran, dtype = read(file)
    except (ValueError, KeyError):
        return checks.unreadable(function, name, "no header of NumPy's", "a .npy file")
    checks.numeric(function, name, dtype, "biufUS", "numbers (a pickle is never opened)")
    return shape, fortran, dtype


def _size(function: str, name: str, has: int, needs: int) -> None:
    if has < needs:
        checks.unreadable(function, name, f"{has} bytes", f"{needs}: the file is cut off")


def _npy(function: str, path: Path, key: str | None, column: bool) -> Numbers:
    with path.open("rb") as file:
        shape, fortran, dtype = _header(function, str(path), file)
        offset, count = file.tell(), int(np.prod(shape, dtype=np.int64))
        _size(function, str(path), path.stat().st_size, offset + count * dtype.itemsize)
        return _native(_mapped(str(path), file, dtype, shape, offset, fortran))


def _native(numbers: Numbers) -> Numbers:
    """Numbers in this machine's order of bytes."""
    array = numbers.array
    if array.dtype.isnative:
        return numbers
    return Numbers(numbers.name, array.astype(array.dtype.newbyteorder("=")))


def _npz(function: str, path: Path, key: str | None, column: bool) -> Numbers:
    try:
        with zipfile.ZipFile(path) as archive:
            names = {name.removesuffix(".npy"): name for name in archive.namelist()}
            key = next(iter(names)) if key is None and len(names) == 1 else key
            if key not in names:
                has = f"no key {key!r}" if key else f"{len(names)} keys"
                expected = f"{path}:KEY, KEY one of {', '.join(names)}"
                return checks.unreadable(function, str(path), has, expected)
            return _member(function, f"{path}:{key}", path, archive, archive.getinfo(names[key]))
    except zipfile.BadZipFile:
        return checks.unreadable(function, str(path), "no archive in it", "a .npz file")


def _member(
    function: str, name: str, path: Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo
) -> Numbers:
    with archive.open(info) as file:
        shape, fortran, dtype = _header(function, name, file)  # type: ignore[arg-type]
        inside, count = file.tell(), int(np.prod(shape, dtype=np.int64))
        if info.compress_type != zipfile.ZIP_STORED:
            numbers = spooled(name, dtype, _decoded(function, name, file, count, dtype), None)
            array = numbers.array
            whole = array.reshape(shape[::-1]).T if fortran else array.reshape(shape)
            return _native(Numbers(name, whole, mapped=numbers.mapped))
    with path.open("rb") as raw:
        raw.seek(info.header_offset + 26)
        name_bytes, extra_bytes = struct.unpack("<HH", raw.read(4))
        offset = info.header_offset + 30 + name_bytes + extra_bytes + inside
        _size(function, name, path.stat().st_size, offset + count * dtype.itemsize)
        return _native(_mapped(name, raw, dtype, shape, offset, fortran))


def _decoded(
    function: str, name: str, file: Any, count: int, dtype: np.dtype
) -> Iterator[np.ndarray]:
    left = count * dtype.itemsize
    while left:
        piece = file.read(min(left, PIECE // dtype.itemsize * dtype.itemsize))
        if len(piece) % dtype.itemsize or not piece:
            checks.unreadable(function, name, f"{left} bytes too few", f"{count} numbers")
        left -= len(piece)
        yield np.frombuffer(piece, dtype)


def _safetensors(function: str, path: Path, key: str | None, column: bool) -> Numbers:
    """The format is a length, a JSON header and the bytes: mapped as they lie."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        try:
            header = json.loads(file.read(length)) if length < size else {}
        except (UnicodeDecodeError, json.JSONDecodeError):
            header = {}
        header.pop("__metadata__", None)
        key = next(iter(header)) if key is None and len(header) == 1 else key
        if key not in header:
            has = f"no key {key!r}" if key else f"{len(header)} keys"
            expected = (
                f"{path}:KEY, KEY one of {', '.join(header) or 'those of a .safetensors file'}"
            )
            return checks.unreadable(function, str(path), has, expected)
        name, about = f"{path}:{key}", header[key]
        if about["dtype"] not in DTYPES:
            expected = f"one of {', '.join(DTYPES)}"
            return checks.unreadable(function, name, f"dtype {about['dtype']}", expected)
        dtype, shape = np.dtype(DTYPES[about["dtype"]]), tuple(about["shape"])
        offset = 8 + length + about["data_offsets"][0]
        _size(function, name, size, 8 + length + about["data_offsets"][1])
        return _mapped(name, file, dtype, shape, offset, bfloat16=about["dtype"] == "BF16")


def _text(function: str, path: Path, key: str | None, column: bool) -> Numbers:
    from xent.evaluation import texts

    separator = b"\t" if path.suffix.lower() == ".tsv" else b","
    with path.open("rb") as file:
        return spooled(str(path), *texts.read(function, str(path), file, separator, key))


def _table(function: str, path: Path, key: str | None, column: bool) -> Numbers:
    from xent.evaluation import tables

    name = str(path) if key is None else f"{path}:{key}"
    return spooled(name, *tables.read(function, path, key, column))


def text_of(data: bytes) -> io.BytesIO:
    """Bytes as a stream: what a test or a program gives in place of a file."""
    return io.BytesIO(data)
