"""Requests that schemathesis makes of an API's OpenAPI description, valid and invalid, and what the answers break."""

import random
from pathlib import Path
from typing import Any

import hypothesis
import requests
import schemathesis
from fuzz_outcomes import Outcomes, is_not_ready
from fuzz_servers import Api
from hypothesis import HealthCheck, Phase, strategies
from schemathesis import GenerationMode
from schemathesis.checks import load_all_checks
from schemathesis.core.failures import Failure, FailureGroup
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

CHECKS = [
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
TIMEOUT_S = 60.0
PER_ROUND = 100  # examples of an endpoint before the next is tried, at most
ROUNDS = 2  # at least: what earlier requests made may matter to later ones
WINDOW = "application/vnd.k2d.window"  # any bytes
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE")
ENDLESS = "/events"  # streams of batches that are not finished: asked of the finished one only


def run(api: Api, *, requests_wanted: int, seed: int, folder: Path) -> Outcomes:
    """Send this many requests, each endpoint in turn, besides one of every method that a path does not have."""
    outcomes = Outcomes(f"{api.name}: requests", folder)
    document = requests.get(f"{api.url}/openapi.json", timeout=TIMEOUT_S).json()
    schema = schemathesis.openapi.from_dict(document)
    schema.config.update(base_url=api.url)
    load_all_checks()
    schemathesis.serializer.alias(WINDOW, "application/octet-stream")
    operations = [found.ok() for found in schema.get_all_operations()]
    _methods(api, document, outcomes)
    most = max(1, min(PER_ROUND, requests_wanted // (ROUNDS * len(operations))))
    wanted = outcomes.sent + requests_wanted
    with requests.Session() as session:
        number = 0
        while outcomes.sent < wanted:
            for operation in operations:
                left = wanted - outcomes.sent
                if left > 0:
                    _fuzz(api, operation, session, outcomes, seed=seed + number, most=min(most, left))
                number += 1
    return outcomes


def _fuzz(api: Api, operation: Any, session: requests.Session, outcomes: Outcomes, *, seed: int, most: int) -> None:
    modes = [GenerationMode.POSITIVE, GenerationMode.NEGATIVE]
    if not (operation.path_parameters or operation.query or operation.body or operation.headers):
        modes = modes[:1]
    rng = random.Random(seed)

    @hypothesis.seed(seed)
    @hypothesis.settings(
        max_examples=most,
        database=None,
        deadline=None,
        derandomize=False,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @hypothesis.given(case=strategies.one_of([operation.as_strategy(mode) for mode in modes]))
    def send(case: Any) -> None:
        for name in list(case.path_parameters or {}):
            values = ["finished"] if ENDLESS in operation.path else api.known.get(name, [])
            if values and (rng.random() < 0.5 or ENDLESS in operation.path):
                case.path_parameters[name] = rng.choice(values)
        _send(case, session, outcomes)

    send()


def _send(case: Any, session: requests.Session, outcomes: Outcomes) -> None:
    label = f"{case.method} {case.operation.path}"
    try:
        answer = case.call(session=session, timeout=TIMEOUT_S)
    except (requests.RequestException, OSError) as error:
        if isinstance(error, requests.exceptions.InvalidHeader | requests.exceptions.InvalidURL):
            return  # the client refuses to send it
        outcomes.sent += 1
        outcomes.fault(f"{label}: {type(error).__name__}", _saved(case, None))
        return
    outcomes.sent += 1
    outcomes.statuses[str(answer.status_code)] += 1
    if is_not_ready(answer.status_code, answer.content):
        outcomes.allowed["not ready"] += 1
    elif answer.status_code >= 500:
        outcomes.fault(f"{label}: {answer.status_code}", _saved(case, answer))
    try:
        case.validate_response(answer, checks=CHECKS)
    except FailureGroup as group:
        for failure in group.exceptions:
            outcomes.fault(f"{label}: {failure.title}: {_first_line(failure)}", _saved(case, answer))
    except Failure as failure:
        outcomes.fault(f"{label}: {failure.title}: {_first_line(failure)}", _saved(case, answer))


def _methods(api: Api, document: dict[str, Any], outcomes: Outcomes) -> None:
    """Methods that a path does not have: 405, and `Allow` names those that it has."""
    for path, operations in document["paths"].items():
        known = {method.upper() for method in operations}
        for method in METHODS:
            if method in known:
                continue
            url = api.url + path.replace("{", "").replace("}", "")
            answer = requests.request(method, url, timeout=TIMEOUT_S)
            outcomes.sent += 1
            outcomes.statuses[str(answer.status_code)] += 1
            if method == "HEAD" and "GET" in known and answer.status_code != 405:
                continue  # as GET, without being described
            allowed = {name.strip() for name in answer.headers.get("allow", "").split(",")}
            if answer.status_code != 405 or allowed != known:
                said = f"{answer.status_code}, Allow: {answer.headers.get('allow')}"
                outcomes.fault(f"{method} {path}: {said}", answer.content)


def _first_line(failure: Failure) -> str:
    return (failure.message or "").strip().split("\n")[0][:150]


def _saved(case: Any, answer: Any) -> bytes:
    said = "" if answer is None else f"\n\n{answer.status_code}\n{dict(answer.headers)}\n{answer.text[:4000]}\n"
    return (case.as_curl_command() + said).encode("utf-8", "backslashreplace")
