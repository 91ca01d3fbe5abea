"""`xent doctor`: its facts, to read and as JSON."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from xent import doctor

sys.path.insert(0, str(Path(__file__).parent))
from command import call

pytestmark = pytest.mark.usefixtures("own_folder")


def test_doctor_prints_its_facts_to_read_and_as_json() -> None:
    facts = doctor.examine()
    to_read, as_json = call("doctor"), call("doctor", "--json")
    assert (to_read.exit_code, to_read.stdout) == (0, doctor.told(facts) + "\n")
    assert (as_json.exit_code, json.loads(as_json.stdout)) == (0, facts)
    assert to_read.stderr == as_json.stderr == ""
