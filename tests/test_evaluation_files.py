"""evaluation.files: every format gives the numbers that were saved, and nothing is unpickled."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from safetensors.torch import save_file as save_torch

import xent
from xent.evaluation import files

pytestmark = pytest.mark.usefixtures("own_folder")


@pytest.fixture
def table(rng: np.random.Generator) -> np.ndarray:
    return rng.standard_normal((300, 7)).astype(np.float32)


def opened(name: str) -> files.Numbers:
    return files.opened("evaluate", name)


def test_npy(table: np.ndarray) -> None:
    for name, array in {
        "c.npy": table,
        "f.npy": np.asfortranarray(table),
        "big.npy": table.astype(">f8"),
        "half.npy": table.astype(np.float16),
        "cube.npy": table.reshape(30, 10, 7),
    }.items():
        np.save(name, array)
        found = opened(name)
        assert (found.name, found.shape) == (name, array.shape)
        assert np.array_equal(found.array, array)
        assert not found.array.flags.owndata or name == "big.npy", "mapped"


def test_npz(table: np.ndarray) -> None:
    np.savez("two.npz", a=table, f=np.asfortranarray(table))
    np.savez_compressed("one.npz", a=table.astype(np.float64), f=np.asfortranarray(table))
    for name in ("two.npz", "one.npz"):
        for key in "af":
            assert np.array_equal(opened(f"{name}:{key}").array, table)
    np.savez("single.npz", a=table)
    assert np.array_equal(opened("single.npz").array, table)
    assert files.members("two.npz") == {"a", "f"}


def test_safetensors(table: np.ndarray) -> None:
    save_file({"a": table, "t": np.arange(5)}, "x.safetensors")
    save_torch({"b": torch.from_numpy(table).bfloat16()}, "b.safetensors")
    assert np.array_equal(opened("x.safetensors:a").array, table)
    found = opened("b.safetensors")
    assert (found.dtype, found.bfloat16) == ("bfloat16", True)
    told = xent.evaluate("b.safetensors", np.zeros(300, int))
    exact = torch.nn.functional.cross_entropy(
        torch.from_numpy(table).bfloat16().double(), torch.zeros(300, dtype=torch.int64)
    )
    assert told.loss == pytest.approx(float(exact), rel=1e-6)


def test_tables_of_text_and_of_arrow(table: np.ndarray) -> None:
    import pyarrow
    import pyarrow.parquet

    np.savetxt("x.csv", table, delimiter=",", fmt="%.9g")
    np.savetxt("x.tsv", table, delimiter="\t", fmt="%.9g")
    columns = pyarrow.table({f"c{i}": table[:, i] for i in range(7)})
    pyarrow.parquet.write_table(columns, "x.parquet")
    for name in ("x.csv", "x.tsv", "x.parquet"):
        assert np.array_equal(opened(name).array.astype(np.float32), table)


def test_text_on_stdin(table: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    text = io.BytesIO()
    np.savetxt(text, table, delimiter=",", fmt="%.9g")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.getvalue())))
    assert np.array_equal(opened("-").array.astype(np.float32), table)


def test_memory_of_what_was_read_can_be_given_back(table: np.ndarray) -> None:
    np.save("x.npy", table)
    found = opened("x.npy")
    found.release(found.array[10:200])
    assert np.array_equal(found.array, table)


class Trap:
    """An object whose pickle writes a file when it is read."""

    def __reduce__(self) -> tuple:
        return Path("sprung").touch, ()


def test_a_pickle_is_never_opened() -> None:
    trap = np.empty(3, object)
    trap[:] = Trap()
    np.save("trap.npy", trap, allow_pickle=True)
    np.savez("trap.npz", a=trap)
    for name in ("trap.npy", "trap.npz"):
        with pytest.raises(TypeError, match=r"has dtype object, expected numbers \(a pickle is ne"):
            opened(name)
    assert not Path("sprung").exists()


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("no.npy", "no.npy has no file of its name, expected a file, or an array"),
        ("x.txt", "x.txt has suffix '.txt', expected a name that ends in .npy, .npz"),
        ("cut.npy", "cut.npy has 128 bytes, expected 528: the file is cut off"),
        ("junk.npy", "junk.npy has no header of NumPy's, expected a .npy file"),
        ("junk.npz", "junk.npz has no archive in it, expected a .npz file"),
        (
            "junk.safetensors",
            "has 0 keys, expected junk.safetensors:KEY, KEY one of those of a .sa",
        ),
        ("two.npz", "two.npz has 2 keys, expected two.npz:KEY, KEY one of a, b"),
        ("two.npz:c", "two.npz has no key 'c', expected two.npz:KEY, KEY one of a, b"),
    ],
)
def test_what_is_told_of_a_file_that_cannot_be_used(name: str, told: str) -> None:
    Path("x.txt").touch()
    np.save("cut.npy", np.zeros((10, 5)))
    whole = Path("cut.npy").read_bytes()
    Path("cut.npy").write_bytes(whole[:128])
    for suffix in ("npy", "npz", "safetensors"):
        Path(f"junk.{suffix}").write_bytes(b"this is no file of that kind")
    np.savez("two.npz", a=np.zeros(3), b=np.zeros(3))
    told = told.replace("528", str(len(whole)))
    with pytest.raises((ValueError, FileNotFoundError)) as error:
        opened(name)
    assert told in str(error.value)
    assert str(error.value).startswith("evaluate: ")
