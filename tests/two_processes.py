"""What test_evaluation_processes runs under torchrun: commands, and what process 0 tells."""

from __future__ import annotations

import json
import os
from pathlib import Path

from click.testing import CliRunner

from xent import cli


def main() -> None:
    told = []
    for command in json.loads(Path("commands.json").read_text(encoding="utf-8")):
        result = CliRunner().invoke(cli.main, command, prog_name="xent")
        told.append([result.exit_code, result.stdout or result.stderr])
    if os.environ["RANK"] == "0":
        Path("told.json").write_text(json.dumps(told), encoding="utf-8")


if __name__ == "__main__":
    main()
