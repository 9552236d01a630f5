"""The chaos bench in its short form: a stack is killed and flushed, and nothing is lost. And it would see a loss."""

import dataclasses
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from places import ROOT
from weights import base

BENCH = ROOT / "bench"
sys.path.append(str(BENCH))

from chaos_faults import drawn  # noqa: E402 - found beside the bench
from chaos_result import RunResult, compare  # noqa: E402
from chaos_volume import Volume  # noqa: E402

LEDGER = {"in": 10.0, "accepted": 6.0, "salvaged": 0.0, "rejected": 2.0, "quarantined": 1.5, "silence": 0.5}
CALM = RunResult(
    status={"state": "done", "ledger": {"seconds": LEDGER}},
    chunks=["a-00000", "a-00001"],
    rows={"a-00000": "1", "a-00001": "2"},
    files={"labels/aa/a.parquet": "1", "facts/bb/b.parquet": "2"},
    downloads={"shard 0": "3"},
    manifest={"digest": "4"},
)


@pytest.mark.integration
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_stack_that_is_killed_and_flushed_ends_as_one_that_is_not() -> None:
    base("transformers")  # the random teacher has its tokenizer
    faults = ["--kills", "4", "--flushes", "1", "--full-disks", "1", "--read-onlys", "0", "--clock-steps", "0"]
    command = [sys.executable, "bench/chaos.py", "--seed", "7", *faults, "--recordings", "2", "--workers", "1"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as run:
        try:
            output, _ = run.communicate()
        finally:
            run.terminate()  # where this test is given up: it stops its stack then
    assert run.returncode == 0, output
    assert "nothing lost, nothing twice, the same bytes" in output
    assert not Path(output.split("files ")[1].split()[0]).exists()  # only a failure leaves files


def test_equal_runs_have_no_differences() -> None:
    assert compare(CALM, CALM).is_none


def with_seconds(**seconds: float) -> dict[str, object]:
    return {"state": "done", "ledger": {"seconds": {**LEDGER, **seconds}}}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"status": with_seconds(accepted=5.999)}, "0.001 s of the recordings are unaccounted for"),
        ({"status": {**CALM.status, "state": "stalled"}}, 'status.state: "done" undisturbed, "stalled" disturbed'),
        ({"chunks": ["a-00000", "a-00000", "a-00001"]}, "1 chunks are there twice"),
        ({"files": {**CALM.files, "facts/bb/b.parquet": "5"}}, "different bytes: facts/bb/b.parquet"),
        ({"files": {"labels/aa/a.parquet": "1"}}, "different bytes: facts/bb/b.parquet (missing)"),
        ({"downloads": {"shard 0": "9"}}, "different bytes: shard 0"),
        ({"manifest": {"digest": "9"}}, 'manifest.digest: "4" undisturbed, "9" disturbed'),
        ({"rows": {"a-00000": "1"}}, 'rows.a-00001: "2" undisturbed, null disturbed'),
    ],
)
def test_every_difference_is_said(change: dict[str, object], says: str) -> None:
    differences = compare(CALM, dataclasses.replace(CALM, **change))  # type: ignore[arg-type]
    assert not differences.is_none
    assert any(says in sentence for sentence in differences.sentences()), differences.sentences()


def test_a_seed_draws_the_same_faults_again() -> None:
    kinds = {"kill": 20, "flush": 2}
    assert list(drawn(kinds, 7)) == list(drawn(kinds, 7)) != list(drawn(kinds, 8))
    assert Counter(fault.kind for fault in drawn(kinds, 7)) == kinds


def test_a_disk_is_full_and_read_only_for_a_while(tmp_path: Path) -> None:
    with Volume(tmp_path / "volume") as volume:
        (volume.store / "folder").mkdir()
        file = volume.store / "folder" / "file"
        if not volume.is_mounted:
            pytest.skip("not allowed to mount a file system")
        with volume.full([]), pytest.raises(OSError, match="No space left"):
            file.write_bytes(bytes(1 << 20))
        with volume.read_only(), pytest.raises(OSError, match="Read-only"):
            file.write_bytes(b"1")
        file.write_bytes(bytes(1 << 20))
        volume.keep = True
    assert (tmp_path / "volume" / "store" / "folder" / "file").stat().st_size == 1 << 20
