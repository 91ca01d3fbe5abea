"""evaluation.processes: two processes as torchrun starts them tell what one does."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import xent
from xent.evaluation import processes

sys.path.insert(0, str(Path(__file__).parent))
from command import call
from prediction_files import drawn, saved

TORCHRUN = "-m", "torch.distributed.run", "--nproc-per-node=2", "--master-port=0", "--standalone"
TWO = Path(__file__).parent / "two_processes.py"


def test_one_process_is_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WORLD_SIZE", "RANK"):
        monkeypatch.delenv(name, raising=False)
    assert processes.world() == (0, 1)
    assert processes.gathered(b"x") == [b"x"]


def test_standard_input_has_one_reader(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "world", lambda: (0, 2))
    text = "evaluate: stdin has 2 processes that would share it, expected a file, which each can"
    with pytest.raises(ValueError, match=text):
        xent.evaluate("-", np.zeros(3, int))


def test_two_processes_tell_what_one_does(own_folder: Path, rng: np.random.Generator) -> None:
    logits, target = drawn(rng, 150_000, 12)
    target[::13] = -100
    new = logits + rng.standard_normal(logits.shape).astype(np.float32) / 10
    group = np.arange(150_000) // 100
    bad = logits.copy()
    bad[70_000, 3] = bad[140_000, 1] = np.nan
    saved(own_folder, x=logits, t=target, y=new, g=group, bad=bad, half=logits.astype(np.float16))
    commands = (
        ("evaluate", "x.npy", "t.npy", "--group", "g.npy", "--temperature", "all"),
        ("evaluate", "half.npy", "t.npy"),
        ("evaluate", "x.npy", "t.npy", "--bootstrap", "20"),
        ("compare", "x.npy", "y.npy", "t.npy"),
        ("evaluate", "bad.npy", "t.npy", "--skip-bad"),
        ("evaluate", "bad.npy", "t.npy"),
    )
    (own_folder / "commands.json").write_text(json.dumps([[*c, "--json"] for c in commands]))
    done = subprocess.run(
        [sys.executable, *TORCHRUN, str(TWO)], capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0, done.stderr
    told = json.loads((own_folder / "told.json").read_text())
    for command, (code, text) in zip(commands, told, strict=True):
        alone = call(*command, "--json")
        assert code == alone.exit_code, command
        assert (alone.stdout or alone.stderr) == text, command
    assert told[-1][0] == 2
    assert "row 70000, class 3" in told[-1][1], "the first, whichever process met it"
