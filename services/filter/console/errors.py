"""What error pages say, in the reader's language: what happened, to what, and what to do on the page.

Errors are worded in English for the API and the shell, with what they are about as members of the problem document
(`batch`, `parameter` …). Pages are worded here by code and members. An error that is not known here gets a general
sentence, and its own text below as a detail.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import parse_qsl, quote, urlencode

from services.filter.console.words import Words

LONGEST: Final = 100  # characters of a value in a sentence
MOST_CHOICES: Final = 8  # in a sentence; the page has them all


@dataclass(frozen=True, slots=True)
class Link:
    """A way out of an error: an address below the root, with `{values}`, and what it is called."""

    address: str
    label: str


@dataclass(frozen=True, slots=True)
class Wording:
    """How a page says an error. A test looks the translation of each text up."""

    text: str  # what happened, to what
    advice: str  # what to do on the page
    link: Link | None = None  # None: the list that the address belongs to
    is_general: bool = False  # the error's own text says more


@dataclass(frozen=True, slots=True)
class PageError:
    """An error as a page shows it."""

    text: str
    advice: str
    address: str
    label: str
    detail: str | None  # the error's own text, in English


BATCHES: Final = Link("", "To the batches")
LISTS: Final[Mapping[str, Link]] = {  # by the first folder of addresses
    "datasets": Link("datasets", "To the datasets"),
    "runs": Link("runs", "To the runs"),
    "review": Link("review", "To the reviews"),
    "keys": Link("keys", "To the keys"),
    "audit-log": Link("audit-log", "To the audit log"),
}
AGAIN: Final = Link("{here}", "Load the page again")
WITHOUT: Final = Link("{without}", "Open the page without it")

NOT_IN_LIST: Final = "Perhaps it was deleted, or its name is misspelled: the list shows all there are."
# by code and a member of the problem document, the first that fits
BY_MEMBER: Final[tuple[tuple[str, str, Wording], ...]] = (
    ("not_found", "recording", Wording(
        "No recording of this batch is called “{recording}”.", "Filter by another one, or by a part of its name.",
        Link("batches/{batch}/chunks", "To the chunks of the batch"),
    )),
    ("bad_request", "recording", Wording(
        "Several recordings of this batch have “{recording}” at the end of their name.", "Write more of the name.",
        Link("batches/{batch}/chunks", "To the chunks of the batch"),
    )),
    ("not_found", "batch", Wording("There is no batch “{batch}”.", NOT_IN_LIST, BATCHES)),
    ("not_found", "dataset", Wording("There is no dataset “{dataset}”.", NOT_IN_LIST, LISTS["datasets"])),
    ("not_found", "run", Wording("There is no run “{run}”.", NOT_IN_LIST, LISTS["runs"])),
    ("not_found", "calibration", Wording(
        "This review has no calibration “{calibration}”.", "The page of the review shows those it has.", LISTS["review"]
    )),
    ("not_found", "draw", Wording("There is no review “{draw}”.", NOT_IN_LIST, LISTS["review"])),
    ("not_found", "chunk", Wording(
        "There is no chunk “{chunk}”.", "Its batch was deleted, or the address is misspelled. Choose a batch, then one "
        "of its chunks.", BATCHES,
    )),
    ("not_found", "key", Wording("There is no key “{key}” in use.", NOT_IN_LIST, LISTS["keys"])),
    ("conflict", "key", Wording(
        "There is another key named “{key}”.", "Take another name, or revoke that key first.", LISTS["keys"]
    )),
    ("conflict", "dataset", Wording(
        "There is another dataset “{dataset}”, made of something else.", "Datasets never change: take another name.",
    )),
    ("batch_unfinished", "batch", Wording(
        "This batch is unfinished, so it cannot be deleted.", "Cancel it first: its page has the button.",
        Link("batches/{batch}#cancel", "To the batch and its button Cancel"),
    )),
    ("batch_at_work", "pid", Wording(
        "A process is at work on this batch, so it cannot be deleted: {command} (process {pid} on {host}).",
        "Wait until it has stopped.", AGAIN,
    )),
    ("batch_at_work", "batch", Wording(
        "A worker may still be at this batch, so it cannot be deleted.", "Wait until it has stopped.", AGAIN
    )),
    ("drawn_batch_deleted", "draw", Wording(
        "A batch of this review was deleted, so it cannot be calibrated over it.",
        "Its labels are there, so the review can go on. Draw segments anew from a batch that is there, or see its page "
        "for how to calibrate over another batch.",
        Link("review/{draw}", "To the page of the review"),
    )),
    ("labels_deleted", "draw", Wording(
        "The labels of this review were deleted, so nothing more can be heard or calibrated.",
        "Answers and calibrations are kept: its page has them. Draw segments anew from a batch that is there.",
        Link("review/{draw}", "To the page of the review"),
    )),
    ("forbidden", "least_role", Wording(
        "This needs the role {least_role}, and your key has the role {role}.",
        "Ask an admin for a key with that role, and sign in with it.", Link("sign-in", "Sign in"),
    )),
)  # fmt: skip
BY_CODE: Final[Mapping[str, Wording]] = {
    "forbidden": Wording(
        "Your session does not fit this page any more, so nothing was changed.",
        "Load the page again, then repeat what you did.", AGAIN,
    ),
    "no_keys": Wording(
        "This server has no keys, so it answers its own machine only.", "Ask whoever runs it for a key.",
        is_general=True,
    ),
    "index_incomplete": Wording(
        "The chunks of this batch are being counted by workers.", "Load the page again in a minute.", AGAIN
    ),
    "queue_unavailable": Wording(
        "The queue does not answer, so no work can be begun.", "What is stored stays. Try again in a moment.", AGAIN,
        is_general=True,
    ),
    "damaged_file": Wording(
        "A file of the store is damaged.", "Other pages still work. Tell whoever runs this server what stands below.",
        is_general=True,
    ),
    "store_unavailable": Wording(
        "The store does not answer, or cannot be used.",
        "Nothing was lost. Try again in a moment; if it stays so, tell whoever runs this server.", AGAIN,
        is_general=True,
    ),
    "not_found": Wording(
        "There is nothing at this address.", "Perhaps it was deleted, or the address is misspelled.", is_general=True
    ),
    "method_not_allowed": Wording(
        "This address is not a page.", "It belongs to the API, which programs use.", is_general=True
    ),
    "conflict": Wording(
        "That cannot be done as things are now.", "Load the page again to see how things are.", is_general=True
    ),
    "internal": Wording(
        "The server made a mistake.", "It is in the server's log. Try again, or tell whoever runs this server.", AGAIN
    ),
}  # fmt: skip
NOT_POSSIBLE: Final = Wording(
    "That is not possible as it was asked for.", "Change what you chose or wrote.", is_general=True
)
NO_SUCH_PAGE: Final = Wording(
    "The list does not have this page any more.", "Begin at its first page.", Link("{without}", "To its first page")
)
NOT_A_POLICY: Final = Wording(
    "The policy cannot be read or has impossible values.", "Choose one on the page, or correct its text.", WITHOUT,
    is_general=True,
)  # fmt: skip
MISSING: Final = Wording("“{parameter}” is missing.", "Fill it in on the page.")
IMPOSSIBLE: Final = "“{parameter}” cannot be “{value}”."
# what a parameter may be, by the members that say so
ALLOWED: Final[tuple[tuple[frozenset[str], str], ...]] = (
    (frozenset(("least", "most")), "It is a number from {least} to {most}."),
    (frozenset(("least",)), "It is a number of at least {least}."),
    (frozenset(("most",)), "It is a number of at most {most}."),
    (frozenset(("choices",)), "It is one of these: {choices}."),
    (frozenset(("form",)), "It is written like {form}."),
    (frozenset(("number",)), "It is a number."),
    (frozenset(), "Choose it on the page."),
)
POLICIES: Final = ("policy", "own", "other", "other_own")
# what parameters are called on pages; others are shown as they are written
FIELDS: Final[Mapping[str, str]] = {
    "alpha": "α",
    "other_alpha": "α to compare with",
    "metric": "Measure",
    "on": "Rules that reject",
    "show": "Below",
    "side": "Show",
    "verdict": "Verdict",
    "reason": "Reason",
    "min_distance": "Distance, from",
    "max_distance": "Distance, to",
    "target": "Label MER at most, %",
    "confidence": "Confidence, %",
    "count": "Draws",
    "seed": "Seed",
    "order": "Order",
    "policy": "Policy",
    "day": "Day",
    "name": "Name",
    "role": "Role",
    "script": "Script of the labels",
}


def page_error(problem: Mapping[str, Any], words: Words, *, path: str, query: str) -> PageError:
    """Word a problem document for the reader of a page.

        page_error({"code": "not_found", "batch": "talks", …}, Words("en"), path="batches/talks", query="").text

    Args:
        path: of the page, below the root.
    """
    _ = words
    wording, advice = _wording(problem)
    shown = {name: _shown(value) for name, value in problem.items()}
    for role in ("role", "least_role"):
        shown |= {role: _(shown[role])} if role in shown else {}
    parameter = str(problem.get("parameter", ""))
    shown["parameter"] = _(FIELDS[parameter]) if parameter in FIELDS else parameter
    pairs = parse_qsl(query, keep_blank_values=True)
    others = [pair for pair in pairs if pair[0] != parameter]
    own_list = LISTS.get(path.partition("/")[0], BATCHES)
    link = wording.link or own_list
    if link.address == WITHOUT.address and others == pairs:  # a form has it
        link = own_list
    address = link.address.format(
        here=path + (f"?{query}" if query else ""),
        without=path + (f"?{urlencode(others)}" if others else ""),
        **{name: quote(value, safe="") for name, value in shown.items()},
    )
    own = str(problem["detail"]) + (f" ({problem['hint']})" if problem.get("hint") else "")
    detail = own if wording.is_general and problem["detail"] != problem["title"] else None
    return PageError(_(wording.text, **shown), _(advice, **shown), address, _(link.label), detail)


def value_members(error: Mapping[str, Any]) -> dict[str, Any]:
    """The members of a problem document for one of the errors that FastAPI finds in a request.

    value_members({"loc": ("query", "alpha"), "type": "less_than_equal", "input": "7", "ctx": {"le": 1}})
    """
    place, context, kind = error["loc"], error.get("ctx") or {}, str(error["type"])
    if place[0] == "path" or len(place) < 2:
        return {}
    members: dict[str, Any] = {"parameter": str(place[1])}
    if kind == "missing":
        return members
    limits = {"least": context.get("ge", context.get("gt")), "most": context.get("le", context.get("lt"))}
    if kind.startswith(("int_", "float_")):
        limits["number"] = True
    return members | {"value": error.get("input")} | {name: own for name, own in limits.items() if own is not None}


def _wording(problem: Mapping[str, Any]) -> tuple[Wording, str]:
    """The wording of a problem, and its advice."""
    code, parameter = problem["code"], problem.get("parameter")
    for known, member, wording in BY_MEMBER:
        if known == code and member in problem:
            return wording, wording.advice
    if code == "invalid_request" and parameter is None:  # a part of the path
        return BY_CODE["not_found"], BY_CODE["not_found"].advice
    if parameter is None:
        wording = BY_CODE.get(code, NOT_POSSIBLE)
    elif parameter == "cursor":
        wording = NO_SUCH_PAGE
    elif parameter in POLICIES:
        wording = NOT_A_POLICY
    elif "value" not in problem:
        wording = MISSING
    else:
        has_few = len(problem.get("choices", ())) <= MOST_CHOICES
        members = problem.keys() - (set() if has_few else {"choices"})
        return Wording(IMPOSSIBLE, "", WITHOUT), next(text for needed, text in ALLOWED if needed <= members)
    return wording, wording.advice


def _shown(value: Any) -> str:
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)[:LONGEST]
