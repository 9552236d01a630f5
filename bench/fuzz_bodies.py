"""Requests that no description has: broken multipart, nested JSON, odd charsets, numbers and names; to both APIs."""

import base64
import http.client
import json
import random
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlsplit

from fuzz_outcomes import Outcomes, is_not_ready
from fuzz_servers import Api

TIMEOUT_S: Final = 60.0
STRINGS: Final = (
    b"", b"\x00", b"\xff\xfe", b"\xed\xa0\x80", b"a" * 300, b"a" * 5000, "講".encode() * 200, b"../../etc/passwd",
    b"%00", b"%ff", b"'\";--", b"<|endoftext|>", b"null", b"NaN", b"1e999", b"-1", b"9" * 5000, b"9" * 20, b"[" *
    3000, b"\r\n", b"{" * 600, b"utf-16", b"lectures", b"zh-en", b"true", "é".encode("latin-1"), b"\\ud800",
    b"b_0123456789abcdef",
)  # fmt: skip
JSONS: Final = (
    "null", "1", '"a"', "[]", "{}", "NaN", "-Infinity", "1e999", "9" * 5000, str(2**63), str(-(2**64)), '"\\ud800"',
    '"\\u0000"', "[" * 5000, '{"a":' * 5000, "[" * 60 + "]" * 60, '"' + "a" * 5000 + '"', "1.5", "true", "0", "-0",
)  # fmt: skip
YAMLS: Final = (
    "a: 2001-13-45", "alpha: !!int x", "alpha: !!float x", "alpha: !!bool x", "alpha: !!timestamp x", "alpha: 1:99:99",
    "alpha: !!binary '%'", "&a x: *a", "? {a: b} : c", "a: &b [*b]", "alpha: .nan", "alpha: .inf", "<<: 1", "=: 1",
    "alpha: 0x" + "f" * 3000, "alpha: 2020-01-01 25:61:61", "a: " * 900, "name: '\\x00'", "metric: evidence",
    "repetition_max: 99999999999999999999", "usual_phonemes_per_s: 1.0e-320", "weights: {bias: 1.0e+308}",
)  # fmt: skip
FIELDS: Final = (
    "name", "language", "teacher", "validator", "beam_size", "terms", "vad", "channels", "files", "file",
    "prompt", "temperature", "response_format", "stream", "timestamp_granularities[]", "model", "_charset_", ""
)  # fmt: skip
CHARSETS: Final = (
    "", "utf-8", "utf-16", "utf-7", "undefined", "punycode", "idna", "rot13", "zlib", "raw_unicode_escape",
    "\x00", "x" * 300
)  # fmt: skip
OPTIONS: Final = (
    "language", "task", "beam_size", "temperatures", "best_of", "compression_ratio_threshold",
    "log_prob_threshold", "no_speech_threshold", "without_timestamps", "max_initial_timestamp_s",
    "max_new_tokens", "initial_prompt", "short_context", "\\ud800"
)  # fmt: skip
FILE_NAMES: Final = (b'; filename="%s"', b"; filename*=utf-8''%s", b"; filename*=undefined''%s", b"; filename*0=%s")
PART_TYPES: Final = (b"audio/wav", b"multipart/mixed; boundary=y", b"text/plain; charset=utf-16")
PATHS: Final = (
    ("GET", "/v1/batches/{}"), ("GET", "/v1/chunks/{}"), ("GET", "/v1/chunks/{}/audio"), ("GET", "/v1/datasets/{}"),
    ("GET", "/v1/datasets/v1/shards/{}"), ("DELETE", "/v1/batches/{}"), ("POST", "/v1/batches/{}/retry"),
    ("DELETE", "/v1/datasets/{}"), ("GET", "/v1/batches/none{}/events"), ("PUT", "/v1/batches/lectures/sources/{}"),
    ("GET", "/v1/batches/lectures/sources/{}"), ("POST", "/v1/batches/{}/close"),
)  # fmt: skip
HEAD: Final = ("act", "options", "prompt", "text", "client", "timeout_s", "x")
HEADERS: Final = (
    "Range", "Origin", "Host", "Authorization", "Content-Length", "Content-Type", "Sec-Fetch-Site", "Accept",
    "Transfer-Encoding", "Last-Event-ID"
)  # fmt: skip


def run(api: Api, *, bodies: int, seed: int, folder: Path) -> Outcomes:
    """Send this many hostile requests."""
    outcomes = Outcomes(f"{api.name}: hostile", folder)
    makers = _LABELING if api.name == "labeling" else _INFERENCE
    for number in range(bodies):
        rng = random.Random(f"{seed}/{number}")
        method, path, headers, body = rng.choice(makers)(rng, api)
        if rng.random() < 0.1:
            headers[rng.choice(HEADERS)] = rng.choice(STRINGS).replace(b"\r\n", b" ")[:4000]
        _send(api, method, path, headers, body, outcomes)
    return outcomes


def _send(api: Api, method: str, path: str, headers: dict[str, bytes], body: bytes, outcomes: Outcomes) -> None:
    address = urlsplit(api.url)
    connection = http.client.HTTPConnection(str(address.hostname), address.port, timeout=TIMEOUT_S)
    what = f"{method} {path.partition('?')[0][:60]}"
    saved = f"{method} {path}\n{headers}\n\n".encode("utf-8", "backslashreplace") + body
    try:
        connection.putrequest(method, path, skip_host="Host" in headers)
        for name, value in headers.items():
            connection.putheader(name, value)
        if "Content-Length" not in headers:
            connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body)
        answer = connection.getresponse()
        content = answer.read()
    except TimeoutError:
        if "Content-Length" in headers or "Transfer-Encoding" in headers:  # it waits for the rest
            outcomes.allowed["waits for the rest"] += 1
        else:
            outcomes.fault(f"{what}: no answer in {TIMEOUT_S:.0f} s", saved)
    except (ValueError, UnicodeError):
        outcomes.allowed["not sendable"] += 1
    except (http.client.HTTPException, OSError) as error:
        outcomes.allowed[f"connection: {type(error).__name__}"] += 1
    else:
        outcomes.statuses[str(answer.status)] += 1
        if is_not_ready(answer.status, content):
            outcomes.allowed["not ready"] += 1
        elif answer.status >= 500:
            outcomes.fault(f"{what}: {answer.status}", saved + b"\n\n" + content[:4000])
        elif answer.status >= 400 and not content.startswith((b"{", b"Invalid HTTP request")):
            outcomes.fault(f"{what}: {answer.status} without a document", saved + b"\n\n" + content[:4000])
    finally:
        connection.close()
    outcomes.sent += 1


# ---- what is sent -------------------------------------------------------------------------------------------------


def _form(rng: random.Random, _: Api) -> tuple[dict[str, bytes], bytes]:
    """Headers and body of a multipart form with something wrong in it."""
    boundary = rng.choice((b"x", b"x", b"x", b"", b"x" * 300, b'"x"', b"\xff"))
    parts = [_part(rng, boundary) for _ in range(rng.choice((0, 1, 2, 3, 60)))]
    end = rng.choice((b"--" + boundary + b"--\r\n",) * 4 + (b"", b"junk"))
    charset = rng.choice(CHARSETS)
    kind = rng.choice((b"multipart/form-data",) * 6 + (b"multipart/mixed", b"application/x-www-form-urlencoded", b""))
    content_type = kind + b"; boundary=" + boundary + (f"; charset={charset}".encode() if charset else b"")
    body = b"".join(parts) + end
    if rng.random() < 0.2:
        body = body[: rng.randrange(len(body) + 1)]
    return {"Content-Type": content_type}, body


def _part(rng: random.Random, boundary: bytes) -> bytes:
    name = rng.choice(FIELDS).encode() if rng.random() < 0.8 else rng.choice(STRINGS)
    disposition = b'form-data; name="' + name + b'"'
    if rng.random() < 0.5:
        form = rng.choice(
            (b'; filename="%s"', b"; filename*=utf-8''%s", b"; filename*=undefined''%s", b"; filename*0=%s")
        )
        disposition += form % rng.choice(STRINGS)
    heads = [b"Content-Disposition: " + disposition]
    heads += [
        b"Content-Type: " + rng.choice((b"audio/wav", b"multipart/mixed; boundary=y", b"text/plain; charset=utf-16"))
    ]
    heads += [b"X: " + rng.choice(STRINGS)] * rng.choice((0, 0, 1, 500))
    rng.shuffle(heads)
    return b"--" + boundary + b"\r\n" + b"\r\n".join(heads) + b"\r\n\r\n" + rng.choice(STRINGS) + b"\r\n"


def _json(rng: random.Random, names: tuple[str, ...]) -> bytes:
    if rng.random() < 0.15:
        return rng.choice(JSONS).encode()
    members = [f'"{name}": {rng.choice(JSONS)}' for name in rng.sample(names, rng.randint(1, min(3, len(names))))]
    return ("{" + ", ".join(members) + rng.choice(("}", "}", "}", ""))).encode()


def _post_form(rng: random.Random, api: Api) -> tuple[str, str, dict[str, bytes], bytes]:
    path = "/v1/batches" + rng.choice(("", "?dry_run=true")) if api.name == "labeling" else "/v1/audio/transcriptions"
    return ("POST", path, *_form(rng, api))


def _post_json(rng: random.Random, _: Api) -> tuple[str, str, dict[str, bytes], bytes]:
    path = rng.choice(
        (
            "/v1/batches",
            "/v1/batches?dry_run=true",
            "/v1/datasets",
            "/v1/policies/preview",
            "/v1/batches/lectures/sources",
        )
    )
    names = ("sources", "name", "batches", "policy", "without", "script", "curve", "terms", "beam_size", "channels")
    return "POST", path, {"Content-Type": b"application/json"}, _json(rng, names)


def _query(rng: random.Random, api: Api) -> tuple[str, str, dict[str, bytes], bytes]:
    chunk = api.known["chunk_id"][0]
    path = rng.choice(("/v1/batches", "/v1/batches/lectures", "/v1/chunks", f"/v1/chunks/{chunk}"))
    name = rng.choice(("policy", "cursor", "limit", "alpha", "metric", "recording", "text", "min_distance", "verdict"))
    value = rng.choice(STRINGS)
    if name == "policy":
        value = (
            ("{" + rng.choice(YAMLS) + "}").encode() if rng.random() < 0.8 else _json(rng, ("alpha", "weights", "name"))
        )
    elif name == "cursor" and rng.random() < 0.7:
        value = base64.urlsafe_b64encode(f"[{rng.choice(JSONS)},{rng.choice(JSONS)}]".encode())[:4000]
    return "GET", f"{path}?batch=lectures&{name}={quote(value[:6000])}", {}, b""


def _path(rng: random.Random, _: Api) -> tuple[str, str, dict[str, bytes], bytes]:
    value = quote(rng.choice(STRINGS)[:3000], safe="")
    method, path = rng.choice(PATHS)
    return method, path.format(value), {}, b""


def _range(rng: random.Random, api: Api) -> tuple[str, str, dict[str, bytes], bytes]:
    value = b"bytes=" + rng.choice(STRINGS)[:4000] + b"-" + rng.choice(STRINGS)[:4000]
    return "GET", f"/v1/chunks/{api.known['chunk_id'][0]}/audio", {"Range": value.replace(b"\r\n", b"")}, b""


def _window(rng: random.Random, _: Api) -> tuple[str, str, dict[str, bytes], bytes]:
    head: Any = rng.choice(JSONS) if rng.random() < 0.1 else _json(rng, HEAD).decode()
    if rng.random() < 0.6:
        options = _json(rng, OPTIONS).decode()
        head = f'{{"options": {options}, "text": {json.dumps(rng.choice(("hello", "講" * 100)))}}}'
    samples = rng.choice((b"", b"\0", b"\0\0" * 8000, b"\xff\x7f" * 1600, b"\0\0" * 480_001))
    path = rng.choice(("/v1/windows:transcribe", "/v1/score"))
    return "POST", path, {"Content-Type": b"application/octet-stream"}, head.encode() + b"\n" + samples


_LABELING: Final = (_post_form, _post_form, _post_json, _query, _query, _path, _range)
_INFERENCE: Final = (_post_form, _window)
