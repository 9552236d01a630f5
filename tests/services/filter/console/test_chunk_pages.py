"""Lists of chunks and pages of a chunk over a real lake: filters, links, verdicts in words, hostile texts shown."""

import re
from collections.abc import Iterator
from dataclasses import replace

import pytest
from factories import finished_batch
from hostile import HOSTILE, HOSTILE_TEXTS
from lakes import batch, put_recording
from local_client import LocalClient

from k2d.corpus import chunk_pages
from k2d.corpus.chunk import detail, find_chunk
from k2d.filtering.policy import DEFAULT, PAPER, RULES, Policy
from k2d.filtering.policy.columns import columns_of
from k2d.filtering.policy.risk import Weights
from k2d.filtering.policy.thresholds import metric_column
from k2d.schema import Metric, Reason, Status
from k2d.settings import Settings
from k2d.store import Lake
from services.filter.app import create_app
from services.filter.console.verdicts import REASONS, sentence
from services.filter.console.words import Words

LIST = "/batches/lectures/chunks"


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    lake = Lake(str(tmp_path_factory.mktemp("console") / "lake"))
    finished_batch(lake, recordings=3)
    finished_batch(lake, name="hostile", recordings=2, names=[HOSTILE + ".wav", "a/../b\n.wav"], texts=HOSTILE_TEXTS)
    spoiled = batch(1, name="spoiled")
    lake.batches.put(replace(spoiled, id="b_00000000000000aa"))
    put = put_recording(lake, 0, [(3.0 * n, 3.0 * n + 2.0) for n in range(60)], bad=frozenset({(1, 0)}))
    lake.batches.put_result("b_00000000000000aa", put)
    return lake


@pytest.fixture(scope="module")
def console(lake: Lake) -> Iterator[LocalClient]:
    with LocalClient(create_app(Settings(store=str(lake.files.root), _env_file=None))) as client:
        yield client


def ids(page: str) -> list[str]:
    return re.findall(r'<a href="chunks/([\w-]+)\?', page)


@pytest.mark.parametrize(
    "query",
    [
        "",
        "verdict=accepted",
        "verdict=rejected&reason=teacher_repetition",
        "recording=talk-1.wav",
        "text=GRADIENT",
        "min_distance=0.1&max_distance=0.3",
        "policy=paper&alpha=0.1&verdict=rejected",
        "verdict=&reason=&recording=&text=&min_distance=&max_distance=",
    ],
)
def test_a_list_is_what_the_api_lists(console: LocalClient, query: str) -> None:
    given = "&".join(pair for pair in query.split("&") if pair.partition("=")[2])
    listed = console.get(f"/v1/chunks?batch=lectures&{given}").json()["chunks"]
    assert ids(console.get(f"{LIST}?{query}").text) == [chunk["id"] for chunk in listed]


def test_pages_follow_one_another_and_keep_their_filters(console: LocalClient, lake: Lake) -> None:
    first = console.get("/batches/spoiled/chunks?verdict=accepted&alpha=0.4").text
    more = re.search(r'href="(batches/[^"]+cursor=[^"]+)"', first)
    assert more is not None
    assert "verdict=accepted" in more[1]
    second = console.get("/" + more[1].replace("&amp;", "&")).text
    policy = DEFAULT.varied(alpha=0.4)
    chunks = chunk_pages.all_chunks(lake, lake.batches.get("spoiled"), policy)
    expected = [chunk.id for chunk in chunks if chunk.verdict is Status.ACCEPTED]
    assert len(expected) == 59
    assert ids(first) + ids(second) == expected


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("verdict=x", 400),
        ("reason=x", 400),
        ("min_distance=x", 400),
        ("cursor=x", 400),
        ("recording=nobody.wav", 404),
        ("recording=" + "%3Cb%3E", 404),
        ("policy=x", 400),
    ],
)
def test_filters_that_are_none(console: LocalClient, query: str, status: int) -> None:
    answer = console.get(f"{LIST}?{query}")
    assert answer.status_code == status
    assert "<b>" not in answer.text


def test_a_chunk_leads_to_its_neighbours_with_the_same_policy(console: LocalClient) -> None:
    page = console.get("/batches/spoiled/chunks").text
    third = ids(page)[2]
    shown = console.get(f"/chunks/{third}?batch=spoiled&alpha=0.2").text
    links = re.findall(r'class="button" href="chunks/([\w-]+)\?([^"]*)"', shown)
    assert [name for name, _ in links] == [ids(page)[1], ids(page)[3]]
    assert all("alpha=0.2" in query and "batch=spoiled" in query for _, query in links)
    assert "0:06.0–0:08.0" in shown
    first = console.get(f"/chunks/{ids(page)[0]}?batch=spoiled").text
    assert len(re.findall(r'class="button" href="chunks/', first)) == 1


def test_a_chunk_is_found_without_its_batch(console: LocalClient) -> None:
    shown = console.get(f"/chunks/{ids(console.get('/batches/spoiled/chunks').text)[0]}").text
    assert ">spoiled</a>" in shown


def test_tokens_segments_and_provenance_are_there(console: LocalClient, lake: Lake) -> None:
    chunk = next(iter(chunk_pages.all_chunks(lake, lake.batches.get("spoiled"))))
    page = console.get(f"/chunks/{chunk.id}").text
    assert len(re.findall(r'class="play segment"', page)) == 2
    starts = [float(at) for at in re.findall(r'class="token" tabindex="-?\d" data-at="([\d.]+)"', page)]
    assert starts[0] == 0.0
    assert starts == sorted(starts)
    assert re.search(r'data-sound="d i"', page)  # 第
    assert "d01c3014881c9c6f" in page
    assert 'class="sub"' in page


@pytest.mark.parametrize("policy", [DEFAULT, PAPER, DEFAULT.varied(alpha=0.0), PAPER.varied(alpha=0.0)])
def test_every_verdict_is_a_sentence(lake: Lake, policy: Policy) -> None:
    for name in ("lectures", "spoiled"):
        for chunk in list(chunk_pages.all_chunks(lake, lake.batches.get(name), policy))[:4]:
            said = sentence(detail(lake, chunk.id, policy), policy, Words("en"))
            assert said.startswith("Kept" if chunk.verdict is Status.ACCEPTED else "Rejected")
            assert REASONS[chunk.reason] in said
            assert "{" not in said


@pytest.mark.parametrize("metric", [Metric.EVIDENCE, Metric.PER_BOUNDED])
def test_a_verdict_names_its_number_and_alpha_so_that_one_is_seen_to_be_larger(lake: Lake, metric: Metric) -> None:
    by = DEFAULT.varied(metric=metric)
    seen = set()
    for chunk in chunk_pages.all_chunks(lake, lake.batches.get("lectures"), by):
        facts = find_chunk(lake, chunk.id)
        columns = columns_of([facts.distances], [facts.evidence])
        exact = float(metric_column(by, columns)[0])
        for step in (0.0, 1e-12, 1e-7, 1e-6, 4e-5, 1e-3):
            for alpha in (exact - step, exact + step, round(exact, 3)):
                policy = by.varied(alpha=min(1.0, max(0.0, alpha)))
                shown = detail(lake, chunk.id, policy)
                said = sentence(shown, policy, Words("en"))
                pair = re.search(r"of ([\d.]+) is (above|at most) α = ([\d.e-]+);", said)
                if pair is None:
                    assert shown.reason in RULES
                    continue
                number, limit = float(pair[1]), float(pair[3])
                assert number > limit if pair[2] == "above" else number <= limit, said
                seen.add(pair[2])
    assert seen == {"above", "at most"}


def test_no_reason_of_a_rejection_says_that_texts_agree_which_differ(lake: Lake) -> None:
    weights = Weights(bias=0.0, disagreement=0.1, avg_logprob=9.0)
    policy = DEFAULT.model_copy(update={"name": "doubtful", "weights": weights, "alpha": 0.0})
    improbable = [
        chunk
        for chunk in chunk_pages.all_chunks(lake, lake.batches.get("lectures"), policy)
        if chunk.reason is Reason.LOW_CONFIDENCE and chunk.distances[Metric.MER]
    ]
    assert improbable  # their texts differ
    for chunk in improbable:
        said = sentence(detail(lake, chunk.id, policy), policy, Words("en"))
        assert "improbable" in said
        assert "agree" not in said


@pytest.mark.parametrize("chunk_id", ["x", "x-00001", "0" * 32 + "-99999999999999999999", "%3Cb%3E", "a-00000.001"])
def test_a_chunk_that_is_not_there(console: LocalClient, chunk_id: str) -> None:
    answer = console.get(f"/chunks/{chunk_id}")
    assert answer.status_code == 404
    assert "<b>" not in answer.text


def test_hostile_names_and_texts_are_shown(console: LocalClient) -> None:
    page = console.get("/batches/hostile/chunks").text
    for text in (page, *(console.get(f"/chunks/{one}?batch=hostile").text for one in ids(page))):
        assert "<script>alert" not in text
        assert "<img" not in text
        assert "<b>" not in text
    assert "&lt;img src=x onerror=alert(1)&gt;" in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
