"""Numbers in .parquet and .arrow files, a batch of rows at a time, with pyarrow."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from xent.evaluation import checks

ROWS = 4096  # of a batch


def read(
    function: str, path: Path, key: str | None, column: bool
) -> tuple[Any, Iterator[np.ndarray], int | None]:
    """The dtype, the pieces and the width of a table: None for a single column of numbers.

    With a key it is that column: of numbers, or of lists of one length, a row each. Without one it
    is the only column there is, or else all of them as the classes.
    """
    pyarrow = checks.library(function, "pyarrow", str(path))
    schema, batches = _opened(function, path)
    if key is not None and key not in schema.names:
        expected = f"one of {', '.join(schema.names)}"
        return checks.unreadable(function, str(path), f"no column {key!r}", expected)
    names = [key] if key is not None else schema.names
    first = schema.field(names[0]).type
    of_lists = any(
        test(first)
        for test in (
            pyarrow.types.is_list,
            pyarrow.types.is_large_list,
            pyarrow.types.is_fixed_size_list,
        )
    )
    if of_lists and len(names) == 1:
        return _lists(function, path, names[0], batches(names), first.value_type)
    dtypes = [schema.field(name).type.to_pandas_dtype() for name in names]
    dtype = np.result_type(*dtypes)
    checks.numeric(function, str(path), dtype, "biuf", "columns of numbers, or one of lists")
    pieces = (_columns(function, path, batch, names, dtype) for batch in batches(names))
    return dtype, pieces, None if len(names) == 1 else len(names)


def labels(function: str, path: Path, key: str | None) -> Iterator[Any]:
    """The values of one column, whatever they are."""
    schema, batches = _opened(function, path)
    name = schema.names[0] if key is None and len(schema.names) == 1 else key
    if name not in schema.names:
        has = f"no column {key!r}" if key else f"{len(schema.names)} columns"
        checks.unreadable(function, str(path), has, f"one of {', '.join(schema.names)}")
    for batch in batches([name]):
        if batch.column(0).null_count:
            checks.unreadable(function, f"{path}:{name}", "nulls", "a label in each row")
        yield from batch.column(0).to_pylist()


def _opened(function: str, path: Path) -> tuple[Any, Any]:
    """The schema, and what gives the batches of some columns."""
    pyarrow = checks.library(function, "pyarrow", str(path))
    try:
        if path.suffix.lower() == ".parquet":
            parquet = checks.library(function, "pyarrow.parquet", str(path))
            file = parquet.ParquetFile(path)
            return file.schema_arrow, lambda names: file.iter_batches(ROWS, columns=names)
        ipc = checks.library(function, "pyarrow.ipc", str(path))
        try:
            table = ipc.open_file(pyarrow.memory_map(str(path)))
            whole = (table.get_batch(i) for i in range(table.num_record_batches))
        except pyarrow.ArrowInvalid:
            table = whole = ipc.open_stream(pyarrow.memory_map(str(path)))
        return table.schema, lambda names: (batch.select(names) for batch in whole)
    except pyarrow.ArrowInvalid as error:
        has = f"no table in it ({error})"
        return checks.unreadable(function, str(path), has, f"a {path.suffix} file")


def _columns(function: str, path: Path, batch: Any, names: list[str], dtype: Any) -> np.ndarray:
    for name in names:
        if batch.column(name).null_count:
            checks.unreadable(function, f"{path}:{name}", "nulls", "a number in each row")
    arrays = [batch.column(n).to_numpy(zero_copy_only=False).astype(dtype) for n in names]
    return arrays[0] if len(arrays) == 1 else np.stack(arrays, axis=1)


def _lists(
    function: str, path: Path, name: str, batches: Iterator[Any], inner: Any
) -> tuple[Any, Iterator[np.ndarray], int]:
    first = next(batches, None)
    whole = f"{path}:{name}"
    if first is None or not first.num_rows:
        return checks.unreadable(function, whole, "no rows", "at least one")
    width = len(first.column(0)[0])
    dtype = np.dtype(inner.to_pandas_dtype())
    checks.numeric(function, whole, dtype, "biuf", "lists of numbers")

    def pieces() -> Iterator[np.ndarray]:
        row = 0
        batch = first
        while batch is not None:
            lists = batch.column(0)
            flat = lists.flatten().to_numpy(zero_copy_only=False)
            lengths = np.asarray(lists.value_lengths().fill_null(-1).to_numpy(zero_copy_only=False))
            if (lengths != width).any():
                at = int(np.argmax(lengths != width))
                has, expected = f"{int(lengths[at])} numbers", f"{width}, as in row 0"
                checks.broken(function, checks.Bad(row + at, -1, whole, has, expected))
            yield flat.reshape(-1, width)
            row += len(lists)
            batch = next(batches, None)

    return dtype, pieces(), width
