"""The audit log: appended only, whole lines whoever else writes, one object an entry where nothing can be appended."""

from concurrent.futures import ThreadPoolExecutor

from k2d.store import Lake


def test_entries_of_many_writers_do_not_mix(tmp_path):
    lakes = [Lake(str(tmp_path / "lake")) for _ in range(4)]
    with ThreadPoolExecutor(8) as pool:
        for number in range(200):
            pool.submit(
                lakes[number % 4].audit_log.record, "post", by="local:a", target=f"b_{number}", note="x\ny" * 50
            )
    entries = list(lakes[0].audit_log.entries())
    assert sorted(entry["target"] for entry in entries) == sorted(f"b_{number}" for number in range(200))


def test_a_line_that_was_cut_off_costs_that_line(tmp_path):
    lake = Lake(str(tmp_path / "lake"))
    lake.audit_log.record("post", by="a", target="1")
    [path] = lake.files.listing("audit-log")
    with open(lake.files.full(path), "ab") as file:
        file.write(b'{"at": "2026\n')
    lake.audit_log.record("post", by="a", target="2")
    assert [entry["target"] for entry in lake.audit_log.entries()] == ["1", "2"]


def test_in_an_object_store_each_entry_is_an_object():
    lake = Lake("memory://audit-test")
    for number in range(3):
        lake.audit_log.record("freeze", by="a", target=str(number))
    assert [entry["target"] for entry in lake.audit_log.entries()] == ["0", "1", "2"]
    assert len(lake.files.listing("audit-log")) == 3
