// The page of reviews: plays a segment, takes an answer by a key, and has the next clip ready before it is asked for.
// Answers are kept in the browser until the server has stored them; each has an id, so none is stored twice.
"use strict";

const AHEAD = 4; // segments that are fetched before they are asked for
const TWICE_MS = 300; // an answer this soon after a segment appears is the end of a double click
const RATES = [1, 0.75, 0.5];
const WAITS_MS = [1000, 2000, 5000, 10000, 30000]; // before answers are sent again

/* ---- answers: kept in the browser until they are stored ---- */

class Answers {
  constructor(page, say, stored) {
    this.prefix = `k2d-review ${page.dataset.reviewer} ${page.dataset.draw} `;
    this.say = say;
    this.stored = stored;
    this.failures = 0;
    this.refused = [];
    this.waiting = this.kept();
    window.addEventListener("online", () => this.send());
    window.addEventListener("beforeunload", (event) => { if (this.unkept && this.waiting.length) event.preventDefault(); });
    this.send();
  }

  kept() {
    try {
      const keys = Object.keys(localStorage).filter((key) => key.startsWith(this.prefix)).sort();
      return keys.map((key) => ({ key, answer: JSON.parse(localStorage.getItem(key)) }));
    } catch {
      return [];
    }
  }

  add(answer) {
    const key = `${this.prefix}${Date.now()} ${answer.id}`; // in the order in which they were given
    this.waiting.push({ key, answer });
    try {
      localStorage.setItem(key, JSON.stringify(answer));
    } catch { // a browser without storage: they are kept while the page is open
      this.unkept = true;
    }
    if (this.stopped) this.stopped();
    else this.send();
  }

  async send() {
    if (this.sending || this.stopped || !this.waiting.length) return;
    this.sending = true;
    clearTimeout(this.timer);
    this.timer = 0;
    const some = this.waiting.slice(0, this.oneByOne ? 1 : 50);
    try {
      await send("POST", "v1/reviews", { reviews: some.map(({ answer }) => answer) });
      this.drop(some);
      this.failures = 0;
      this.oneByOne = this.oneByOne && this.waiting.length > 0;
      this.stored();
      if (!this.waiting.length) this.say(this.refused.length ? "refused" : "sent", this.refusal());
    } catch (error) {
      this.fail(error, some);
    } finally {
      this.sending = false;
    }
    if (!this.timer) this.send();
  }

  fail(error, some) {
    const count = this.waiting.length;
    if (error.status === 401) this.stop("signed_out", { link: "sign_in" });
    else if (error.status === 403) this.stop("refused", { why: error.message, link: "reload" });
    else if (error.status >= 400 && error.status < 500 && error.status !== 408 && error.status !== 429) {
      if (some.length === 1) { // it would be refused for ever; those behind it go on
        this.drop(some);
        this.refused.push(some[0].answer);
        this.why = error.message;
        this.say("refused", this.refusal());
      } else this.oneByOne = true;
    } else {
      const wait = WAITS_MS[Math.min(this.failures++, WAITS_MS.length - 1)];
      this.timer = setTimeout(() => { this.timer = 0; this.send(); }, wait);
      this.say("offline", { count });
    }
  }

  stop(name, values) { // nothing is sent until the page is loaded again
    this.stopped = () => this.say(name, { count: this.waiting.length, ...values });
    this.stopped();
  }

  refusal() {
    return this.refused.length ? { count: this.refused.length, why: this.why, link: "save_refused", refused: this.refused } : {};
  }

  drop(some) {
    this.waiting = this.waiting.filter((entry) => !some.includes(entry));
    for (const { key } of some) localStorage.removeItem(key);
  }
}

/* ---- clips: fetched before they are asked for ---- */

class Clips {
  constructor(page) {
    this.url = `v1/draws/${page.dataset.draw}/segments?second=${page.dataset.second}&limit=${AHEAD}`;
    this.ready = [];
    this.last = -1;
    this.around = 0;
    this.ended = false;
    this.seen = new Set();
  }

  async fill() {
    if (this.filling || this.ended || this.ready.length >= AHEAD) return this.filling;
    this.filling = this.more().finally(() => { this.filling = null; });
    return this.filling;
  }

  async more() {
    const { segments } = await send("GET", `${this.url}&after=${this.last}`);
    this.ended = !segments.length;
    for (const segment of segments) {
      this.last = Math.max(this.last, segment.number);
      if (this.seen.has(segment.id)) continue;
      this.seen.add(segment.id);
      this.ready.push({ segment, clip: this.clip(segment) });
    }
  }

  clip(segment) {
    const audio = new Audio();
    audio.controls = true;
    audio.preload = "auto";
    const address = segment.audio + (this.around ? `?around=${this.around}` : "");
    audio.fetched = fetch(address).then(async (response) => {
      if (!response.ok) throw new Error((await response.json()).detail);
      audio.src = URL.createObjectURL(await response.blob());
      audio.load();
    });
    audio.fetched.catch(() => {});
    return audio;
  }

  again(skipped) { // from the front, for segments that were skipped
    this.last = -1;
    this.ended = false;
    for (const id of skipped) this.seen.delete(id);
  }
}

/* ---- editing: the parts where hypotheses differ are stops for Tab ---- */

class Editor {
  constructor(form) {
    this.form = form;
    this.text = form.elements.text;
    this.text.addEventListener("input", () => this.shift());
  }

  get open() { return !this.form.hidden; }

  show(text, stops) {
    this.form.hidden = false;
    this.text.value = this.before = text;
    this.stops = stops.map((stop) => [...stop]);
    this.text.focus();
    this.text.setSelectionRange(text.length, text.length);
    if (this.stops.length) this.select(0);
  }

  hide() { this.form.hidden = true; }

  select(number) {
    this.at = number;
    this.text.setSelectionRange(...this.stops[number]);
  }

  // Goes to the next stop (or the one before); false behind the last, where Tab leaves the field as always.
  step(back) {
    const { selectionStart: from, selectionEnd: to } = this.text;
    const here = this.stops.findIndex(([start, end]) => start === from && end === to);
    const next = back
      ? this.stops.findLastIndex(([start], number) => (here >= 0 ? number < here : start < from))
      : this.stops.findIndex(([start], number) => (here >= 0 ? number > here : start >= to));
    if (next < 0) return false;
    this.select(next);
    return true;
  }

  // Moves the stops behind a change by as much as the text grew; those it touches end with it.
  shift() {
    const [old, now] = [this.before, this.text.value];
    let head = 0;
    while (head < Math.min(old.length, now.length) && old[head] === now[head]) head++;
    let tail = 0;
    while (tail < Math.min(old.length, now.length) - head && old.at(-1 - tail) === now.at(-1 - tail)) tail++;
    const grown = now.length - old.length;
    const moved = (at) => (at <= head ? at : Math.max(head, at >= old.length - tail ? at + grown : now.length - tail));
    this.stops = this.stops.map(([start, end]) => [moved(start), moved(end)]);
    this.before = now;
  }
}

/* ---- the page ---- */

class Desk {
  constructor(page) {
    this.page = page;
    this.words = JSON.parse(page.dataset.words);
    this.may = page.dataset.may === "true";
    this.part = (id) => document.getElementById(id);
    this.clips = new Clips(page);
    this.editor = new Editor(this.part("editor"));
    this.done = [];
    this.skipped = [];
    this.rate = 0;
    this.progress = this.part("progress");
    this.answers = new Answers(page, (...said) => this.say(...said), () => this.stored());
    for (const { answer } of this.answers.waiting) this.clips.seen.add(answer.segment);
    this.listen();
    this.next();
  }

  listen() {
    document.addEventListener("keydown", (event) => this.key(event));
    this.page.addEventListener("click", (event) => {
      const button = event.target.closest("button[data-action], button[data-candidate]");
      if (!button) return;
      if (button.dataset.candidate) this.choose(Number(button.dataset.candidate), event.shiftKey);
      else this[button.dataset.action]();
      if (!this.editor.open) this.page.focus({ preventScroll: true });
    });
    this.part("editor").addEventListener("submit", (event) => { event.preventDefault(); this.store(); });
    this.part("around").addEventListener("change", (event) => this.surround(event.target.checked ? 1 : 0));
    this.part("calibrate")?.addEventListener("change", () => { this.progress.ariaLive = "polite"; });
    this.progress.addEventListener("htmx:beforeSwap", () => { this.unfolded = Boolean(this.progress.querySelector("details[open]")); });
    this.progress.addEventListener("htmx:afterSwap", () => this.progress.querySelector("details")?.toggleAttribute("open", this.unfolded));
    for (const button of this.page.querySelectorAll(".answers button")) button.disabled = !this.may;
  }

  key(event) {
    if (event.isComposing || event.ctrlKey || event.metaKey || event.altKey) return;
    const inEditor = this.editor.open && event.target === this.editor.text;
    const action = inEditor ? this.editorKey(event) : this.deskKey(event);
    if (!action) return;
    event.preventDefault();
    if (!event.repeat) action();
  }

  editorKey(event) {
    if (event.key === "Enter" && !event.shiftKey) return () => this.store();
    if (event.key === "Escape") return () => this.cancel();
    if (event.key === "F2") return () => this.again();
    if (event.key === "F4") return () => this.play();
    return event.key === "Tab" && this.editor.step(event.shiftKey) ? () => {} : null;
  }

  deskKey(event) {
    const target = event.target;
    if (target !== document.body && target.matches("input:not([type=checkbox]), select, textarea")) return null;
    if (!this.part("keys").checked) return null;
    const digit = /^(?:Digit|Numpad)([1-9])$/.exec(event.code);
    if (digit) return () => this.choose(Number(digit[1]), event.shiftKey);
    // whoever went to a control with Tab means that control
    const onControl = target.matches("button, a, summary, audio, input");
    if (event.key === "Enter") return onControl ? null : () => this.right();
    if (event.key === " ") return onControl ? null : () => this.play();
    const actions = { e: "edit", n: "nothing", c: "unknown", s: "skip", u: "undo", r: "again", l: "slower" };
    const name = !event.shiftKey && actions[event.key.toLowerCase()];
    return name ? () => this[name]() : null;
  }

  /* answers */

  right() { this.answer("right"); }
  nothing() { this.answer("nothing"); }
  unknown() { this.answer("unknown"); }

  choose(number, edit) {
    const candidate = this.current?.segment.candidates[number - 1];
    if (!candidate) return;
    if (edit) this.edit(candidate.text, []);
    else this.answer("text", candidate.text);
  }

  edit(text, stops) {
    if (!this.current || !this.may) return;
    const { label, stops: own } = this.current.segment;
    this.editor.show(text ?? label, stops ?? own);
  }

  store() {
    const text = this.editor.text.value.trim().replace(/\s+/g, " ");
    if (!this.current) return;
    if (text === this.current.segment.label) this.answer("right");
    else if (text) this.answer("text", text);
    else this.answer("nothing");
  }

  cancel() {
    this.editor.hide();
    this.page.focus({ preventScroll: true });
  }

  answer(verdict, reference) {
    const now = performance.now();
    if (!this.current || !this.may || now - this.shown < TWICE_MS) return;
    const answer = {
      id: newId(), segment: this.current.segment.id, verdict, draw: this.page.dataset.draw,
      seconds: Math.round(now - this.shown) / 1000,
    };
    if (reference !== undefined) answer.reference = reference;
    this.leave({ item: this.current, answered: true });
    this.next();
    this.answers.add(answer);
  }

  skip() {
    if (!this.current || performance.now() - this.shown < TWICE_MS) return;
    this.skipped.push(this.current.segment.id);
    this.leave({ item: this.current, answered: false });
    this.say("skipped");
    this.next();
  }

  leave(entry) {
    this.current.clip.pause();
    this.done.push(entry);
    const old = this.done.at(-50)?.item.clip; // far back, a clip is fetched again if it is needed
    if (old?.src) { URL.revokeObjectURL(old.src); old.gone = true; }
    this.current = null;
    if (this.editor.open) this.cancel();
  }

  undo() {
    const entry = this.done.pop();
    if (!entry) return this.say("no_undo");
    const { item, answered } = entry;
    if (answered) {
      this.answers.add({ id: newId(), segment: item.segment.id, verdict: "undone", draw: this.page.dataset.draw });
    } else this.skipped = this.skipped.filter((id) => id !== item.segment.id);
    if (this.current) {
      this.current.clip.pause();
      this.clips.ready.unshift(this.current);
    }
    if (item.clip.gone) item.clip = this.clips.clip(item.segment);
    if (this.editor.open) this.cancel();
    this.show(item);
    this.say("undone");
  }

  /* playing */

  async next() {
    if (this.clips.ready.length) {
      this.show(this.clips.ready.shift());
      this.clips.fill().catch(() => {}); // said when there is nothing left to show
      return;
    }
    this.clear(this.words.loading);
    try {
      await this.clips.fill();
      if (!this.clips.ready.length && this.skipped.length) {
        this.clips.again(this.skipped.splice(0));
        await this.clips.fill();
      }
      if (this.current) return; // somebody went back meanwhile
      if (this.clips.ready.length) this.next();
      else if (this.clips.ended) this.clear(this.words[this.page.dataset.second === "true" ? "done_second" : "done"]);
      else this.next();
    } catch (error) {
      if (error.status === 401) this.answers.fail(error, []);
      else if (error.status) this.clear(error.message);
      else setTimeout(() => { if (!this.current) this.next(); }, WAITS_MS[1]);
    }
  }

  clear(text) {
    this.part("player").replaceChildren();
    this.part("candidates").replaceChildren();
    this.part("label").textContent = text;
    this.part("place").textContent = this.part("source").textContent = "";
  }

  show(item) {
    this.current = item;
    this.shown = performance.now();
    this.part("player").replaceChildren(item.clip);
    this.start(item);
    const { segment } = item;
    this.part("place").textContent = fill(this.words.place, { number: segment.number + 1, all: this.page.dataset.segments });
    this.part("source").textContent = `${segment.recording} · ${clock(segment.start_s)} – ${clock(segment.end_s)}`;
    this.part("label").replaceChildren(
      span("context", segment.before && `… ${segment.before.slice(-60)} `), ...marked(segment, this.words.nothing),
      span("context", segment.after && ` ${segment.after.slice(0, 60)} …`),
    );
    this.part("candidates").replaceChildren(...segment.candidates.map((candidate, at) => choice(candidate, at + 1, this.may)));
  }

  async start(item) {
    item.clip.playbackRate = RATES[this.rate];
    try {
      if (!item.clip.src) await item.clip.fetched;
      if (this.current !== item) return;
      item.clip.currentTime = 0;
      item.clip.playbackRate = RATES[this.rate];
      await item.clip.play();
    } catch (error) {
      if (error.name === "AbortError" || this.current !== item) return; // another clip plays by now
      if (error.name === "NotAllowedError") this.say("press");
      else this.say("no_audio", { why: error.message });
    }
  }

  play() {
    const clip = this.current?.clip;
    if (!clip) return;
    if (clip.paused) clip.play().catch(() => this.start(this.current));
    else clip.pause();
  }

  again() { if (this.current) this.start(this.current); }

  slower() {
    this.rate = (this.rate + 1) % RATES.length;
    if (this.current) this.current.clip.playbackRate = RATES[this.rate];
  }

  surround(seconds) {
    this.clips.around = seconds;
    for (const item of this.clips.ready) item.clip = this.clips.clip(item.segment);
    if (!this.current) return;
    this.current.clip.pause();
    this.current.clip = this.clips.clip(this.current.segment);
    this.part("player").replaceChildren(this.current.clip);
    this.start(this.current);
  }

  /* what is said to the reviewer */

  // While one look at the progress is on its way htmx keeps one more back, whatever comes meanwhile: however fast
  // somebody answers there are never two at once, and the last one begins after the last answer was stored.
  stored() {
    this.progress.ariaLive = "off"; // it would talk into the next segment
    htmx.trigger(this.progress, "refresh");
  }

  say(name, values = {}) {
    const state = this.part("state");
    state.className = ["offline", "signed_out", "refused", "no_audio"].includes(name) ? "error" : "";
    state.replaceChildren(fill(this.words[name], values));
    if (values.link) state.append(" ", this.link(values));
  }

  link({ link, refused }) {
    const target = document.createElement("a");
    target.textContent = this.words[link];
    if (link === "sign_in") target.href = `sign-in?next=${encodeURIComponent(this.page.dataset.path)}`;
    else if (link === "reload") target.href = location.href;
    else {
      target.href = URL.createObjectURL(new Blob([JSON.stringify(refused, null, 1)], { type: "application/json" }));
      target.download = "reviews.json";
    }
    return target;
  }
}

/* ---- helpers ---- */

function newId() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

function clock(seconds) {
  const minutes = Math.floor(seconds / 60);
  return `${minutes}:${(seconds - 60 * minutes).toFixed(1).padStart(4, "0")}`;
}

function span(kind, text) {
  const element = document.createElement("span");
  if (kind) element.className = kind;
  element.textContent = text || "";
  return element;
}

// The label with its stops marked: places where some hypothesis differs.
function marked({ label, stops }, nothing) {
  if (!label) return [span("context", `(${nothing})`)];
  const parts = [];
  let at = 0;
  for (const [start, end] of stops) {
    parts.push(span("", label.slice(at, start)), span("sub", label.slice(start, end)));
    at = end;
  }
  return [...parts, span("", label.slice(at))];
}

function choice(candidate, number, enabled) {
  const [item, button, key, what] = ["li", "button", "kbd", "span"].map((name) => document.createElement(name));
  button.type = "button";
  button.dataset.candidate = number;
  button.disabled = !enabled;
  key.textContent = number;
  what.className = "what";
  what.lang = "zh-Hant";
  for (const step of candidate.diff) {
    if (step.op === "equal") what.append(span("", step.validator_text));
    else {
      if (step.teacher_text) what.append(span("del", step.teacher_text));
      if (step.validator_text) what.append(span("ins", step.validator_text));
    }
  }
  const whose = document.createElement("small");
  whose.textContent = whose.title = candidate.validators.join(" · ");
  button.append(key, what, whose);
  item.append(button);
  return item;
}

async function freeze(form) {
  const button = form.querySelector("button");
  button.disabled = true;
  const { batches, policy } = form.dataset;
  const name = form.elements.name.value;
  try {
    await send("POST", "v1/datasets", { name, batches: JSON.parse(batches), policy: JSON.parse(policy) });
    location.assign(new URL(`datasets/${encodeURIComponent(name)}`, document.baseURI));
  } catch (error) {
    const notice = document.createElement("p");
    notice.className = "notice error";
    notice.textContent = error.message;
    document.getElementById("notice").replaceChildren(notice);
    button.disabled = false;
  }
}

document.addEventListener("DOMContentLoaded", () => {
  const page = document.getElementById("review");
  if (page) new Desk(page);
  const form = document.getElementById("freeze");
  form?.addEventListener("submit", (event) => { event.preventDefault(); freeze(form); });
});
