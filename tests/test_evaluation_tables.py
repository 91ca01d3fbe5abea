"""evaluation.tables: columns and lists of .parquet and .arrow files."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from xent.evaluation import files

pytestmark = pytest.mark.usefixtures("own_folder")


def written(name: str, table: pa.Table) -> None:
    if name.endswith(".parquet"):
        parquet.write_table(table, name)
        return
    new = pa.ipc.new_stream if name.startswith("stream") else pa.ipc.new_file
    with pa.OSFile(name, "wb") as file, new(file, table.schema) as writer:
        writer.write_table(table, max_chunksize=1000)


@pytest.mark.parametrize("name", ["x.parquet", "x.arrow", "stream.arrow"])
def test_columns_and_lists(name: str, rng: np.random.Generator) -> None:
    table, target = rng.standard_normal((9000, 4)), rng.integers(0, 4, 9000)
    fixed = pa.FixedSizeListArray.from_arrays(pa.array(table.reshape(-1)), 4)
    written(name, pa.table({"f": fixed, "l": pa.array(table.tolist()), "t": target}))
    for key in ("f", "l"):
        assert np.array_equal(files.opened("evaluate", f"{name}:{key}").array, table)
    assert np.array_equal(files.opened("evaluate", f"{name}:t").array, target)


@pytest.mark.parametrize(
    ("columns", "key", "told"),
    [
        ({"a": [1, 2]}, "b", "x.parquet has no column 'b', expected one of a"),
        ({"a": [1, None]}, "a", "x.parquet:a has nulls, expected a number in each row"),
        ({"a": [[1.0], [1.0, 2.0]]}, "a", "x.parquet:a has 2 numbers at row 1, expected 1, as in"),
        ({"a": [[1.0], None]}, "a", "x.parquet:a has -1 numbers at row 1, expected 1, as in row 0"),
        ({"a": ["x"]}, "a", "x.parquet has dtype object, expected columns of numbers, or one of"),
    ],
)
def test_wrong_tables_are_told(columns: dict, key: str, told: str) -> None:
    written("x.parquet", pa.table(columns))
    with pytest.raises((ValueError, TypeError)) as error:
        files.opened("evaluate", f"x.parquet:{key}")
    assert told in str(error.value)


def test_what_is_no_table_is_told() -> None:
    for name in ("x.parquet", "x.arrow"):
        Path(name).write_bytes(b"no table at all")
        with pytest.raises(
            ValueError, match=rf"evaluate: {name} has no table in it .*, expected a"
        ):
            files.opened("evaluate", name)


def test_without_pyarrow_it_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("x.parquet").touch()
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ModuleNotFoundError) as error:
        files.opened("evaluate", "x.parquet")
    told = 'evaluate: x.parquet needs pyarrow, not installed: pip install "xent[evaluate]"'
    assert str(error.value) == told
