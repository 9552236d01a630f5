"""Files that people edit and hand back are read whatever their editor did to them."""

import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k2d.filtering.policy import PRESETS, load, to_yaml
from k2d.settings import Settings
from k2d.textfiles import read_lines, read_text

ROOT = Path(__file__).parents[2]
SEPARATORS = "\u2028\u2029\u0085\x0b\x0c\x1c\x1d\x1e"
EDITORS = {
    "plain": lambda text: text.encode(),
    "byte order mark": lambda text: b"\xef\xbb\xbf" + text.encode(),
    "CRLF": lambda text: text.replace("\n", "\r\n").encode(),
    "both, no last line end": lambda text: b"\xef\xbb\xbf" + text.rstrip("\n").replace("\n", "\r\n").encode(),
}
edited = pytest.mark.parametrize("save", EDITORS.values(), ids=EDITORS)


@edited
def test_lines_end_at_line_ends_only(tmp_path: Path, save) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "file"
    path.write_bytes(save(f"今天{SEPARATORS}好\n\n{{}}\n"))
    assert list(read_lines(path)) == [f"今天{SEPARATORS}好", "", "{}"]
    assert read_text(path).rstrip("\n") == f"今天{SEPARATORS}好\n\n{{}}"


@given(st.lists(st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]), min_size=1)))
def test_json_lines_come_back(tmp_path_factory: pytest.TempPathFactory, texts: list[str]) -> None:
    path = tmp_path_factory.mktemp("lines") / "file.jsonl"
    path.write_text("".join(json.dumps(text, ensure_ascii=False) + "\n" for text in texts), "utf-8")
    assert [json.loads(line) for line in read_lines(path)] == texts


@edited
def test_policies(tmp_path: Path, save) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "mine.yaml"
    path.write_bytes(save(to_yaml(PRESETS["evidence"])))
    assert load(str(path)) == PRESETS["evidence"]


@edited
def test_the_file_of_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, save) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("K2D_DEVICE", raising=False)
    Path(".env").write_bytes(save("K2D_DEVICE=cpu\nK2D_BATCH_SIZE=3\n"))
    assert Settings().device == "cpu"


def test_no_reader_splits_lines_otherwise() -> None:
    for path in (path for room in ("k2d", "services", "trainer") for path in (ROOT / room).rglob("*.py")):
        assert not re.search(r"read_text\([^()]*\)\.(?:splitlines|readlines)", _code(path)), path


def _code(path: Path) -> str:
    text = path.read_text("utf-8")
    system = ("services/tritonserver/shm.py", "k2d/text/data/build_cmudict.py")  # files that nobody edits
    return "" if path.relative_to(ROOT).as_posix() in system else text
