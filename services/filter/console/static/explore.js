// Draws what α and the rules keep. The server counts once for all α; moving the slider asks it for nothing.
"use strict";

const form = document.getElementById("explore");
const words = JSON.parse(form.dataset.words);
const address = form.dataset.address;
const language = document.documentElement.lang;
const slider = document.getElementById("alpha");
const typed = document.getElementById("alpha-number");
const STEPS = 1000, THINNED = 5;
let curve = null, measures = [], plot = null, cursor = "", asked = 0;

const alphaNow = () => Math.min(1, Math.max(0, Number(typed.value) || 0));
const digits = (value) => new Intl.NumberFormat(language, { maximumFractionDigits: value < 10 ? 2 : 1 }).format(value);
const whole = (value) => new Intl.NumberFormat(language).format(value);
const hours = (ms) => ms < 7.2e6 ? fill(words.min, { count: digits(ms / 6e4) }) : fill(words.h, { count: digits(ms / 3.6e6) });
const share = (part, all) => all ? `${(100 * part / all).toFixed(1)} %` : "–";
const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

// The state of the page: everything in the form, without what is empty and a policy that was not sent yet.
function query(more) {
  const pairs = [...new FormData(form)].filter(([name, value]) => name !== "own" && value !== "");
  return new URLSearchParams([...pairs, ...Object.entries(more || {}).filter(([, value]) => value)]).toString();
}

function remember(push) {
  const target = `${address}?${query({ cursor })}`;
  if (push) history.pushState(null, "", target); else history.replaceState(null, "", target);
  document.getElementById("csv").href = `${address}/curve.csv?${query()}`;
}

// ---- numbers at α

function kept(at) {
  const step = Math.floor(at * STEPS + 1e-9); // never more than α keeps
  return { chunks: curve.kept[step], kept: curve.kept_ms[step], salvaged: curve.salvaged_ms[step] };
}

function showNumbers() {
  if (!curve) return;
  const at = kept(alphaNow());
  const rejected = curve.ms - at.kept - at.salvaged;
  const texts = {
    kept: [hours(at.kept), share(at.kept, curve.ms)],
    salvaged: [hours(at.salvaged), share(at.salvaged, curve.ms)],
    rejected: [hours(rejected), share(rejected, curve.ms)],
    chunks: [whole(at.chunks), share(at.chunks, curve.chunks)],
  };
  for (const [name, [text, part]] of Object.entries(texts)) {
    const small = document.createElement("small");
    small.textContent = part;
    document.querySelector(`[data-number="${name}"]`).replaceChildren(`${text} `, small);
  }
  document.getElementById("chunks-kept").textContent = fill(words.chunks_kept, { count: whole(at.chunks) });
  let x = 0;
  for (const [name, ms] of [["accepted", at.kept], ["salvaged", at.salvaged], ["rejected", rejected]]) {
    const bar = document.querySelector(`.ledger-bar .${name}`);
    const width = curve.ms ? 1000 * ms / curve.ms : 0;
    bar.setAttribute("x", x.toFixed(2));
    bar.setAttribute("width", Math.max(0, width).toFixed(2));
    x += width;
  }
}

function say() {
  const at = curve && kept(alphaNow());
  if (at) document.getElementById("said").textContent =
    `α ${alphaNow()}: ${words.kept} ${hours(at.kept)} (${share(at.kept, curve.ms)}), ${words.salvaged} ${hours(at.salvaged)}`;
}

function showTable() {
  const rows = [];
  for (let step = 0; step <= STEPS; step += 50) {
    const row = document.createElement("tr");
    const at = kept(step / STEPS);
    for (const text of [(step / STEPS).toFixed(2), hours(at.kept), hours(at.salvaged), whole(at.chunks)]) {
      const cell = document.createElement("td");
      cell.className = "number";
      cell.textContent = text;
      row.append(cell);
    }
    rows.push(row);
  }
  document.querySelector("#numbers-table tbody").replaceChildren(...rows);
  for (const place of document.querySelectorAll("[data-rule]")) {
    const count = curve.rules[place.dataset.rule];
    place.textContent = count ? `${fill(words.chunks, { count: whole(count[0]) })}, ${hours(count[1])}` : "";
  }
  document.getElementById("estimate").textContent =
    curve.sample < 1 ? `${words.salvaged}: ${words.estimate.replace("{share}", share(curve.sample, 1))}` : "";
  document.getElementById("explanation").textContent = curve.explanation;
}

// ---- the chart

const DASHES = [[], [8, 4], [2, 3], [10, 3, 2, 3], [5, 5], [1, 4], [12, 6], [6, 2]];
const INKS = ["rejected", "quarantined", "insert", "substitute", "delete", "pending", "soft", "unlabeled"];

function lines() {
  const thin = (values) => values.filter((_, step) => step % THINNED === 0).map((ms) => ms / 3.6e6);
  const own = [
    { label: words.policy, values: thin(curve.kept_ms.map((ms, step) => ms + curve.salvaged_ms[step])), stroke: color("accent"), width: 3, dash: [] },
    { label: `${words.policy}, ${words.kept}`, values: thin(curve.kept_ms), stroke: color("accepted"), width: 1.5, dash: [3, 3] },
  ];
  const others = measures.map((series, place) => ({
    label: words[series.kind].replace("{name}", series.label),
    values: series.ms.map((ms) => ms / 3.6e6),
    stroke: color(INKS[place % INKS.length]), width: 1.25, dash: DASHES[(place + 1) % DASHES.length],
  }));
  return [...own, ...others];
}

function draw() {
  const place = document.getElementById("curve");
  const drawn = lines();
  const hidden = new Set((plot ? plot.series : []).filter((series) => series.show === false).map((series) => series.label));
  const alphas = drawn[0].values.map((_, step) => step * THINNED / STEPS);
  const axis = { stroke: color("soft"), grid: { stroke: color("line"), width: 1 }, ticks: { stroke: color("line"), width: 1 } };
  const options = {
    width: Math.max(280, place.clientWidth), height: 320,
    scales: { x: { time: false, range: [0, 1] }, y: { range: (_, __, most) => [0, most || 1] } },
    axes: [{ ...axis, label: "α", labelSize: 20 }, { ...axis, label: words.hours, size: 60, labelSize: 20 }],
    series: [{ label: "α" }, ...drawn.map(({ label, stroke, width, dash }) => ({
      label, stroke, width, dash, show: !hidden.has(label), points: { show: false }, value: (_, value) => value == null ? "–" : digits(value),
    }))],
    hooks: { draw: [markAlpha], ...legendHooks },
  };
  if (plot) plot.destroy();
  place.replaceChildren();
  plot = new uPlot(options, [alphas, ...drawn.map(({ values }) => values)], place);
}

function markAlpha(chart) {
  const x = chart.valToPos(alphaNow(), "x", true), { ctx, bbox } = chart;
  ctx.save();
  ctx.strokeStyle = color("focus");
  ctx.lineWidth = 2;
  ctx.beginPath();
  ctx.moveTo(x, bbox.top);
  ctx.lineTo(x, bbox.top + bbox.height);
  ctx.stroke();
  ctx.restore();
}

function savePicture() {
  if (!plot) return;
  const chart = plot.ctx.canvas, scale = devicePixelRatio || 1, line = 18 * scale;
  const shown = plot.series.slice(1).filter((series) => series.show !== false);
  const picture = document.createElement("canvas");
  picture.width = chart.width;
  picture.height = chart.height + line * (shown.length + 2);
  const pen = picture.getContext("2d");
  pen.fillStyle = color("card");
  pen.fillRect(0, 0, picture.width, picture.height);
  pen.drawImage(chart, 0, 0);
  pen.font = `${12 * scale}px sans-serif`;
  const at = kept(alphaNow());
  pen.fillStyle = color("ink");
  pen.fillText(`α = ${alphaNow()}: ${words.kept} ${hours(at.kept)}, ${words.salvaged} ${hours(at.salvaged)}`, 10 * scale, chart.height + line);
  shown.forEach((series, place) => {
    const y = chart.height + line * (place + 2);
    pen.fillStyle = pen.strokeStyle = typeof series.stroke === "function" ? series.stroke(plot, place + 1) : series.stroke;
    pen.setLineDash((series.dash || []).map((length) => length * scale));
    pen.lineWidth = 2 * scale;
    pen.beginPath();
    pen.moveTo(10 * scale, y - 4 * scale);
    pen.lineTo(50 * scale, y - 4 * scale);
    pen.stroke();
    pen.fillStyle = color("ink");
    pen.fillText(series.label, 60 * scale, y);
  });
  picture.toBlob((blob) => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(blob);
    link.download = "curve.png";
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  }, "image/png");
}

// ---- what is asked of the server

async function load() {
  const mine = ++asked, own = query();
  const place = document.getElementById("curve");
  place.setAttribute("aria-busy", "true");
  try {
    const found = await send("GET", `${address}/curve.json?${own}`);
    if (mine !== asked) return;
    curve = found;
    showNumbers();
    showTable();
    draw();
    const others = await send("GET", `${address}/measures.json?${own}`);
    if (mine !== asked) return;
    measures = others.series;
    draw();
  } catch (error) {
    if (mine !== asked) return;
    const notice = document.createElement("p");
    notice.className = "notice error";
    notice.textContent = words.failed.replace("{detail}", error.message);
    document.getElementById("notice").replaceChildren(notice);
  } finally {
    place.removeAttribute("aria-busy");
  }
}

function loadPanel() {
  htmx.ajax("GET", `${address}/panel?${query({ cursor })}`, { target: "#panel", swap: "innerHTML" });
}

let waiting = 0;
function alphaMoved(event) {
  if (event.target === slider) typed.value = slider.value; else slider.value = typed.value;
  cancelAnimationFrame(waiting);
  waiting = requestAnimationFrame(() => {
    showNumbers();
    if (plot) plot.redraw(false);
  });
}

slider.addEventListener("input", alphaMoved);
typed.addEventListener("input", alphaMoved);
form.addEventListener("change", (event) => {
  const { name } = event.target;
  if (name === "own") return;
  cursor = "";
  if (name === "policy" || name === "metric") { // another policy has rules and an α of its own
    const fresh = new URLSearchParams(query());
    for (const own of ["rules", "on", ...(name === "policy" ? ["metric", "alpha"] : [])]) fresh.delete(own);
    location.assign(`${address}?${fresh}`);
    return;
  }
  if (name === "on") load();
  document.getElementById("comparison").hidden = form.elements.show.value !== "flips";
  remember(event.target !== slider && name !== "alpha");
  say();
  loadPanel();
});
form.addEventListener("submit", (event) => {
  event.preventDefault();
  const fresh = new URLSearchParams(query());
  if (form.elements.own.value.trim()) {
    for (const own of ["rules", "on", "metric", "alpha", "policy"]) fresh.delete(own);
    fresh.set("own", form.elements.own.value);
  }
  location.assign(`${address}?${fresh}`);
});
document.getElementById("panel").addEventListener("click", (event) => {
  const button = event.target.closest("[data-cursor]");
  if (!button) return;
  cursor = button.dataset.cursor;
  remember(true);
  loadPanel();
});
document.getElementById("png").addEventListener("click", savePicture);
window.addEventListener("popstate", () => location.reload());
new ResizeObserver(() => {
  const place = document.getElementById("curve");
  if (plot && Math.abs(place.clientWidth - plot.width) > 4) plot.setSize({ width: place.clientWidth, height: 320 });
}).observe(document.getElementById("curve"));
document.addEventListener("DOMContentLoaded", load); // when the page's other scripts are there
