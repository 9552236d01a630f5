"""`k2d store check`: what it prints, and its exit status."""

import json
from collections.abc import Callable
from pathlib import Path

from k2d.store import Lake

Run = Callable[..., tuple[int, str, str]]


def test_a_check_prints_what_it_found_and_mends_it(k2d: Run, tmp_path: Path) -> None:
    assert k2d("store", "check") == (0, "0 files checked: nothing is damaged\n", "")
    lake = Lake(str(tmp_path / "lake"))
    lake.files.write("examinations/ab/abcd.json", b"\xff")
    lake.files.write("access/keys/0123456789ab.json", b"{}")
    code, out, _ = k2d("store", "check")
    assert code == 1
    assert "examinations/ab/abcd.json" in out
    assert "k2d store check --repair" in out
    code, out, _ = k2d("store", "check", "--repair", "--json")
    document = json.loads(out)
    assert (code, document["clean"], document["counts"]) == (1, False, {"examination": 1, "key": 1})
    assert [finding["mended"] for finding in document["found"]] == [True, False]
    assert lake.files.read("damaged/examinations/ab/abcd.json") == b"\xff"
    assert [entry["action"] for entry in lake.audit_log.entries()] == ["repair store"]
    code, out, err = k2d("keys", "list")
    assert code == 0
    assert "damaged" in out + err
    assert k2d("keys", "revoke", "0123456789ab")[0] == 0
    assert k2d("store", "check", "--fast")[0] == 0
