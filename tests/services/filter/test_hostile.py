"""No request of a stranger is an internal error: what is wrong with it is said, as a problem document."""

import base64
import json

import pytest
from factories import finished_batch
from local_client import LocalClient

from k2d.settings import Settings
from k2d.store import Lake
from services.filter.app import create_app
from services.web.problems import problem

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def api(tmp_path_factory, redis_url):
    """The API over a finished batch."""
    store = str(tmp_path_factory.mktemp("hostile") / "lake")
    finished_batch(Lake(store))
    app = create_app(Settings(store=store, redis_url=redis_url, _env_file=None))
    with LocalClient(app, raise_server_exceptions=False) as client:
        yield client


@pytest.fixture(scope="module")
def chunk(api):
    return api.get("/v1/chunks", params={"batch": "lectures"}).json()["chunks"][0]["id"]


def assert_refused(answer, *statuses):
    assert answer.status_code in (statuses or (400, 404, 422)), (answer.status_code, answer.text)
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["status"] == answer.status_code


POLICIES = (
    "{a: 2001-13-45}", "{alpha: !!int x}", "{alpha: !!float x}", "{alpha: !!bool x}", "{alpha: !!timestamp x}",
    "{alpha: 2020-01-01 25:61:61}", "{alpha: !!binary '%'}", "{&a x: *a}", "{? {a: b} : c}", "{alpha: .nan}",
    "{alpha: .inf}", "{<<: 1}", "{" + "a: {" * 600, "{" * 3000, "{" + "[" * 3000, '{"a":' * 600 + "1" + "}" * 600,
    '{"name": "\\ud800"}', '{"\\ud800": 1}', "{alpha: !!python/object:os.system x}", "{alpha: " + "9" * 3900 + "}",
)  # fmt: skip


@pytest.mark.parametrize("policy", POLICIES, ids=lambda policy: policy[:24])
def test_policies(api, chunk, policy):
    assert_refused(api.get("/v1/batches/lectures", params={"policy": policy}), 400)
    assert_refused(api.get(f"/v1/chunks/{chunk}", params={"policy": policy}), 400)


CURSORS = ("[1e400,0]", "[Infinity,0]", "[NaN,0]", f"[{'9' * 3000},0]", "[" * 3000, "{}", "[1]", "[-1,-1]",
           "[0,2147483648]", "[1.5,0]", "[true,0]", "null", '"ab"', "[[],0]")  # fmt: skip


@pytest.mark.parametrize("cursor", CURSORS, ids=lambda cursor: cursor[:24])
def test_cursors(api, cursor):
    encoded = base64.urlsafe_b64encode(cursor.encode()).decode()
    assert_refused(api.get("/v1/chunks", params={"batch": "lectures", "cursor": encoded}), 400)


@pytest.mark.parametrize("digits", ["9" * 5000, "9" * 20, "2147483648"])
def test_ids_and_numbers(api, chunk, digits):
    key = chunk.rpartition("-")[0]
    for path in (f"/v1/chunks/{key}-{digits}", f"/v1/chunks/{key}-{digits}/audio", f"/v1/datasets/x/shards/{digits}"):
        assert_refused(api.get(path), 404, 422)
    body = {"name": "x", "batches": ["lectures"], "without": [f"{key}-{digits}", f"{chunk}.{digits}"]}
    assert_refused(api.post("/v1/datasets", json=body), 400, 422)
    answer = api.get(f"/v1/chunks/{chunk}/audio", headers={"Range": f"bytes=0-{digits}"})
    assert answer.status_code in (200, 206)


FORM = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.wav"\r\n\r\nabc\r\n--x--\r\n'


@pytest.mark.parametrize(
    "charset", ["utf-16", "undefined", "punycode", "idna", "\x00", "raw_unicode_escape", "x" * 300]
)
@pytest.mark.parametrize("dry_run", [False, True])
def test_forms_in_other_charsets(api, charset, dry_run):
    kind = f"multipart/form-data; boundary=x; charset={charset}"
    headers = {"content-type": kind}
    assert_refused(api.post("/v1/batches", content=FORM, headers=headers, params={"dry_run": dry_run}), 400)


@pytest.mark.parametrize("path", ["/v1/batches", "/v1/datasets", "/v1/policies/preview"])
@pytest.mark.parametrize(
    "body",
    ["[" * 100_000, '{"a":' * 50_000, '{"name": "\\ud800", "batches": ["\\ud800"]}', '{"\\ud800": 1}', "9" * 5000,
     '{"batches": ["lectures"], "name": "x", "policy": {"alpha": NaN}}', "nul", "",
     '{"batches": ["\\u0000"], "name": "x"}'],
    ids=lambda body: body[:24],
)  # fmt: skip
def test_json_bodies(api, path, body):
    assert_refused(api.post(path, content=body.encode(), headers={"content-type": "application/json"}))


@pytest.mark.parametrize(
    ("header", "value", "status"),
    [
        ("Origin", b"http://[", 403),
        ("Origin", b"\xff", 403),
        ("Host", b"[", 400),
        ("Content-Length", b"9" * 5000, 413),
        ("Content-Length", b"\xb2", 413),
        ("Content-Length", b"-1", 413),
    ],
)
def test_headers(api, header, value, status):
    assert_refused(api.post("/v1/batches", content=b"x", headers={header: value}), status)


def test_a_405_names_the_methods_of_its_path(api):
    for path, allowed in (
        ("/v1/batches", {"GET", "POST"}),
        ("/v1/batches/x", {"GET", "DELETE"}),
        ("/v1/resume", {"POST"}),
        ("/healthz", {"GET"}),
    ):
        answer = api.put(path)
        assert_refused(answer, 405)
        assert set(answer.headers["allow"].split(", ")) == allowed


def test_every_endpoint_describes_what_middleware_answers(api):
    for path, operations in api.get("/openapi.json").json()["paths"].items():
        for method, operation in operations.items():
            guarded = {"401", "503"} if path.startswith("/v1") else set()
            assert {"400", "403", "413"} | guarded <= set(operation["responses"]), (method, path)


def test_what_is_quoted_in_an_error_can_be_sent():
    answer = problem(400, "x", "no \ud800", alphas=[float("nan"), 0.5], where={"\udcff": ("a", None)})
    document = json.loads(answer.body)
    assert (document["detail"], document["alphas"], document["where"]) == (
        "no \\ud800",
        [None, 0.5],
        {"\\udcff": ["a", None]},
    )
