// What every page needs beyond htmx: nothing is done twice by a double click, and a lost server is said.
"use strict";

document.addEventListener("htmx:beforeRequest", (event) => {
  const element = event.detail.elt;
  if (element instanceof HTMLButtonElement) element.disabled = true;
});
document.addEventListener("htmx:afterRequest", (event) => {
  const element = event.detail.elt;
  if (element instanceof HTMLButtonElement) element.disabled = false;
});
document.addEventListener("htmx:sendError", () => {
  const notice = document.createElement("p");
  notice.className = "notice error";
  notice.textContent = document.documentElement.lang === "en"
    ? "The server does not answer. Nothing was lost; try again in a moment."
    : "伺服器沒有回應。沒有遺失任何資料，請稍後再試。";
  document.getElementById("notice").replaceChildren(notice);
});

// Records in tables are cards on narrow screens, where each value stands behind its column's name.
function nameCells() {
  for (const table of document.querySelectorAll("table.cards")) {
    const names = [...table.tHead.rows[0].cells].map((head) => (head.firstElementChild ? "" : head.textContent.trim()));
    for (const cell of table.querySelectorAll("tbody td")) {
      if (cell.colSpan === 1 && names[cell.cellIndex]) cell.dataset.column = names[cell.cellIndex];
    }
    // what a cell is to a screen reader, some browsers take from how it is laid out
    const roles = { "thead, tbody": "rowgroup", tr: "row", "thead th": "columnheader", "tbody th": "rowheader", td: "cell" };
    table.setAttribute("role", "table");
    for (const [parts, role] of Object.entries(roles)) {
      for (const part of table.querySelectorAll(parts)) part.setAttribute("role", role);
    }
  }
}
document.addEventListener("DOMContentLoaded", nameCells);
document.addEventListener("htmx:afterSwap", nameCells);

// A text with its values: fill("{count} {count:file|files}", { count: 1 }) is "1 file", as Words in words.py has it.
function fill(text, values) {
  return text.replace(/\{(\w+)(?::([^|{}]*)\|([^{}]*))?\}/g, (_, name, one, many) =>
    one === undefined ? values[name] ?? "" : String(values[name]) === "1" ? one : many);
}

// A chart's legend has values only where the pointer is at a point: without one they would all be dashes.
const legendHooks = {
  ready: [showValues],
  setLegend: [showValues],
};
function showValues(chart) {
  chart.root.querySelector(".u-legend").classList.toggle("u-live", chart.legend.idx != null);
}

// Requests of our own scripts: with the session's token, errors as exceptions with the server's words.
async function send(method, url, body) {
  const headers = { "X-CSRF-Token": document.body.dataset.csrf };
  if (body !== undefined && !(body instanceof FormData)) {
    headers["Content-Type"] = "application/json";
    body = JSON.stringify(body);
  }
  const response = await fetch(url, { method, headers, body });
  const kind = response.headers.get("content-type") || "";
  const answer = kind.includes("json") ? await response.json() : await response.text();
  if (!response.ok) { // of a page's own data the answer is an error page
    const notice = kind.includes("html") && new DOMParser().parseFromString(answer, "text/html").querySelector(".notice.error");
    const said = answer.detail || (notice ? notice.innerText : String(answer).slice(0, 300)) || response.statusText;
    throw Object.assign(new Error(said), { status: response.status });
  }
  return answer;
}
