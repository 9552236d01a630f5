"""Commands that only look make nothing; what they print is for people."""

import os
import re

import pytest
from factories import tone
from lakes import flac

from k2d.client.http import Client


def test_doctor_and_a_dry_run_make_no_store(k2d, tmp_path):
    (tmp_path / "a.flac").write_bytes(flac(tone(2.0)))
    k2d("doctor")
    code, out, err = k2d("label", "a.flac", "--dry-run")
    assert code == 0, err
    assert "1 recording, " in out
    assert "2.0 s of audio, about 1 window\n" in out
    assert "has not measured teacher" in out
    assert "1 recordings" not in out
    for command in ("batches", "resume", "sweep"):
        k2d(command)
    assert not (tmp_path / "lake" / "batches").exists()
    k2d("doctor", K2D_STORE=str(tmp_path / "elsewhere" / "lake"))
    assert not (tmp_path / "elsewhere").exists()


def test_the_columns_of_doctor_are_aligned(k2d):
    lines = [line for line in k2d("doctor")[1].splitlines() if re.match("works|broken|absent|to fetch", line)]
    assert len(lines) > 8
    names = (
        "Python",
        "engine",
        "extra: ",
        "golden clips",
        "validators of batches",
        "store",
        "disk",
        "cache",
        "temporary files",
        "Redis",
        "teacher",
        "validator",
        "API answers",
        "GPU",
    )
    assert {re.search("|".join(names), line).start() for line in lines} == {9}
    assert all(line[31] == " " and line[32] != " " for line in lines)


def test_models_prints_no_list_of_python(k2d):
    out = k2d("models")[1]
    assert "packaged:whisper-base" in out
    assert "[" not in out


@pytest.mark.parametrize(
    ("text", "meant"),
    [("alhpa: 0.3\n", "alpha"), ("quorm: most\n", "quorum"), ("metric: evidence\nweights: {bais: 1}\n", "bias")],
)
def test_an_unknown_field_of_a_policy_names_the_nearest(k2d, tmp_path, text, meant):
    (tmp_path / "mine.yaml").write_text(text)
    code, _, err = k2d("policy", "check", "mine.yaml")
    assert code == 2
    assert f"did you mean {meant}?" in err


def test_an_unknown_setting_names_the_nearest(k2d):
    assert "did you mean K2D_STORE?" in k2d("batches", K2D_STROE="x")[2]


def test_an_unknown_id_to_leave_out_is_a_warning_and_a_status(k2d, batch, tmp_path, lake):
    key = lake.batches.result(batch.id, 0).facts_key
    (tmp_path / "ids").write_text(f"{key}-00000\n{'0' * 32}-00001\n")
    code, out, err = k2d("freeze", "v1", "--batch", "lectures", "--without", "ids")
    assert code == 1
    assert "1 unknown id" in err
    assert "dataset v1" in out
    (tmp_path / "ids").write_text(f"{key}-00000\n")
    assert k2d("freeze", "v2", "--batch", "lectures", "--without", "ids")[0] == 0


def test_sweep_removes_old_unfinished_files_only(k2d, lake, batch, tmp_path):
    old, young = (tmp_path / "lake" / "facts" / name for name in (".old.tmp", ".young.tmp"))
    for path in (old, young):
        path.write_bytes(b"x")
    os.utime(old, (0, 0))
    assert k2d("sweep")[:2] == (0, "1 unfinished file removed\n")
    assert young.exists()
    assert not old.exists()


def test_a_wrong_store_is_named(k2d, tmp_path, monkeypatch):
    for command in ("batches", "datasets list"):
        assert str(tmp_path / "other") in k2d(*command.split(), K2D_STORE=str(tmp_path / "other"))[1]
    (tmp_path / "file").write_text("")
    for blank in ("", " "):
        code, _, err = k2d("batches", K2D_STORE=blank)
        assert (code, "K2D_STORE: it is blank: name a folder" in err) == (2, True)
    code, _, err = k2d("batches", K2D_STORE=str(tmp_path / "file"))
    assert code
    assert f"{tmp_path / 'file'} is a file" in err.replace("\n", "")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert str(tmp_path / "lake2") in k2d("batches", K2D_STORE="~/lake2")[1]


def test_a_curve_says_that_it_is_of_disagreement(k2d, batch):
    assert "disagreement of label and hypothesis, not an error" in k2d("curve", "lectures")[1]


def test_a_store_that_is_not_asked_because_an_api_answers_is_named(k2d, monkeypatch):
    monkeypatch.setattr(Client, "is_up", lambda _: True)
    _, _, err = k2d("batches", K2D_STORE="elsewhere")
    assert "not the store elsewhere (--embedded asks that)" in err
    _, out, err = k2d("batches", "--embedded", K2D_STORE="elsewhere")
    assert "not the store" not in out + err


def test_what_is_no_address_of_an_api_is_named(k2d):
    for address in ("foo", "127.0.0.1:8080", "http://", "ftp://host", "http://host:port"):
        code, _, err = k2d("batches", "--api", address)
        assert (code, f"not the address of an API: '{address}'" in err) == (2, True)
        assert "an address begins with http://" in err


def test_files_that_are_none_or_no_text_are_named_in_plain_words(k2d, batch, tmp_path):
    for name in ("a.flac", "list.jsonl"):
        (tmp_path / name).write_bytes(b"fLaC\xff\x00")
    no_text = "it is not a text in UTF-8"
    for arguments, words in (
        (("calibrate", "a.flac"), f"cannot read a.flac: {no_text}"),
        (("calibrate", "nope"), "neither a draw nor a file: 'nope'"),
        (("chunks", "lectures", "--policy", "none.yaml"), "cannot read the policy none.yaml: there is no such file"),
        (("chunks", "lectures", "--policy", "./"), "cannot read the policy ./: it is a folder"),
        (("chunks", "lectures", "--policy", "./a.flac"), f"cannot read the policy ./a.flac: {no_text}"),
        (("freeze", "v1", "--batch", "lectures", "--without", "a.flac"), f"--without cannot be read: {no_text}"),
        (("label", "x.wav", "--terms", "a.flac"), f"a.flac cannot be read: {no_text}"),
        (("label", "list.jsonl"), f"cannot read the list list.jsonl: {no_text}"),
        (("chunks", "lectures", "--jsonl", "--csv"), "--jsonl and --csv are two formats"),
    ):
        code, _, err = k2d(*arguments)
        assert (code, words in err) == (2, True), err
        assert "hint" in err or "a.flac" in err


def test_a_draw_says_how_to_start_a_console_that_is_not_there(k2d, batch, monkeypatch):
    assert "start the console with `k2d up`, then open http://127.0.0.1:8080/review/d_" in k2d("review", "lectures")[1]
    monkeypatch.setattr(Client, "is_up", lambda _: True)
    assert "in a browser: http://127.0.0.1:8080/review/d_" in k2d("review", "lectures")[1]


def test_a_draw_of_labels_that_were_deleted_says_so_and_keeps_its_answers(k2d, batch, tmp_path):
    draw = re.search("d_[0-9a-f]+", k2d("review", "lectures")[1])[0]
    assert k2d("store", "delete", "lectures", "--yes")[0] == 0
    code, _, err = k2d("calibrate", draw)
    assert (code, f"labels of draw '{draw}' were deleted" in err) == (2, True)
    assert k2d("reviews", "export", draw, str(tmp_path / "rows.jsonl"))[0] == 0
