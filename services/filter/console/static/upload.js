// A new batch: files and folders by choice or drop, or URIs; an estimate; sending with progress. Nothing is stored
// before the server has everything, so whoever loses the connection starts again and has lost nothing.
"use strict";

(() => {
  const form = document.getElementById("new-batch");
  const limits = JSON.parse(form.dataset.limits);
  const texts = JSON.parse(form.dataset.texts);
  const field = (id) => document.getElementById(id);
  const problem = field("problem"), forecast = field("forecast"), sending = field("sending");
  const start = field("start"), stop = field("stop"), estimate = field("estimate");
  const OPTIONS = ["name", "language", "beam_size", "channels", "terms", "teacher", "validator", "rescore", "vad",
    "condition_on_previous_text", "keep_partial"];
  const HIDDEN = /(^|\/)(\.|Thumbs\.db$|desktop\.ini$)/i; // what systems put into folders by themselves
  let files = []; // {file, name}
  let request = null; // the upload that goes on

  const count = (number) => number.toLocaleString("en");
  function size(bytes) {
    for (const unit of ["B", "kB", "MB", "GB"]) {
      if (bytes < 1000) return `${bytes.toFixed(unit === "B" ? 0 : 1)} ${unit}`;
      bytes /= 1000;
    }
    return `${bytes.toFixed(1)} TB`;
  }
  function length(seconds) {
    if (seconds < 120) return fill(texts.s, { count: seconds.toFixed(0) });
    return seconds < 7200 ? fill(texts.min, { count: (seconds / 60).toFixed(0) }) : fill(texts.h, { count: (seconds / 3600).toFixed(1) });
  }
  const total = () => files.reduce((sum, entry) => sum + entry.file.size, 0);
  function show(element, text) {
    element.textContent = text;
    element.hidden = !text;
  }
  const firstOf = (names) => names.slice(0, 10).join(", ") + (names.length > 10 ? " …" : "");
  const fail = (text) => { show(problem, text); if (text) problem.scrollIntoView({ block: "nearest" }); };

  // ---- choosing ----

  function add(entries) {
    const known = new Set(files.map((entry) => entry.name));
    for (const entry of entries) {
      if (!HIDDEN.test(entry.name) && !known.has(entry.name)) files.push(entry);
      known.add(entry.name);
    }
    chosen();
  }

  function chosen() {
    const line = field("chosen");
    line.replaceChildren();
    show(forecast, "");
    fail(files.length ? refusal() : "");
    if (!files.length) return;
    line.append(fill(texts.chosen, { count: count(files.length), size: size(total()) }) + " ");
    const remove = document.createElement("button");
    remove.type = "button";
    remove.className = "link";
    remove.textContent = texts.remove;
    remove.addEventListener("click", () => { files = []; chosen(); field("files").focus(); });
    line.append(remove);
  }

  // Why these files cannot be sent; "" if they can. A server refuses the same, but only after a while.
  function refusal() {
    const large = files.find((entry) => entry.file.size > limits.bytes);
    if (large) return fill(texts.fileTooLarge, { name: large.name, size: size(large.file.size), limit: size(limits.bytes) });
    if (files.length > limits.files) return fill(texts.tooMany, { count: count(files.length), limit: count(limits.files) });
    // names, boundaries and headers come on top of the files
    const sent = total() + 1000 * files.length + 100000;
    return sent > limits.bytes ? fill(texts.tooLarge, { size: size(total()), limit: size(limits.bytes) }) : "";
  }

  const of = (file) => ({ file, name: file.webkitRelativePath || file.name });
  for (const id of ["files", "folder"]) {
    field(id).addEventListener("change", (event) => { add([...event.target.files].map(of)); event.target.value = ""; });
  }

  // Files of a dropped folder: readEntries gives a hundred at a time
  async function walk(entry, found) {
    if (entry.isFile) {
      const file = await new Promise((resolve, reject) => entry.file(resolve, reject));
      found.push({ file, name: entry.fullPath.replace(/^\//, "") });
      return;
    }
    const reader = entry.createReader();
    for (;;) {
      const some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
      if (!some.length) return;
      for (const inner of some) await walk(inner, found);
    }
  }
  const drop = field("drop");
  for (const kind of ["dragover", "dragenter"]) {
    drop.addEventListener(kind, (event) => { event.preventDefault(); drop.classList.add("over"); });
  }
  drop.addEventListener("dragleave", () => drop.classList.remove("over"));
  drop.addEventListener("drop", async (event) => {
    event.preventDefault();
    drop.classList.remove("over");
    const entries = [...event.dataTransfer.items].map((item) => item.webkitGetAsEntry && item.webkitGetAsEntry());
    const plain = [...event.dataTransfer.files].map(of);
    const found = [];
    try {
      for (const entry of entries) if (entry) await walk(entry, found);
    } catch (error) {
      fail(error.message);
    }
    add(found.length ? found : plain);
  });

  // ---- what is sent ----

  function options() {
    const chosenOptions = {};
    for (const name of OPTIONS) {
      const value = field(name)?.value.trim(); // a batch that is added to has its options already
      if (value) chosenOptions[name] = value;
    }
    return chosenOptions;
  }

  function uris() {
    const sources = [];
    field("uris").value.split("\n").forEach((line, index) => {
      line = line.trim();
      if (!line || line.startsWith("#")) return;
      let uri = line;
      if (line.startsWith("{")) {
        try {
          const entry = JSON.parse(line);
          uri = entry.audio_filepath || entry.audio || entry.path || entry.uri;
        } catch { uri = null; }
      }
      if (typeof uri !== "string") throw new Error(fill(texts.line, { line: index + 1, text: line.slice(0, 100) }));
      sources.push(uri);
    });
    return sources;
  }

  // The body of a request: a form with files, or JSON with URIs. `some`: the files that are sent.
  function body(some) {
    const sources = uris();
    if (sources.length && files.length) throw new Error(texts.both);
    if (sources.length) return JSON.stringify({ ...options(), sources });
    if (!files.length) throw new Error(texts.empty);
    if (refusal()) throw new Error(refusal());
    const data = new FormData();
    for (const [name, value] of Object.entries(options())) data.append(name, value);
    for (const entry of some) data.append("files", entry.file, entry.name);
    return data;
  }

  function post(query, content, onProgress) {
    return new Promise((resolve, reject) => {
      const xhr = request = new XMLHttpRequest();
      xhr.open("POST", ["v1/batches", query].filter(Boolean).join("?"));
      xhr.responseType = "json";
      xhr.setRequestHeader("X-CSRF-Token", document.body.dataset.csrf);
      if (typeof content === "string") xhr.setRequestHeader("Content-Type", "application/json");
      if (onProgress) xhr.upload.addEventListener("progress", onProgress);
      xhr.onload = () => {
        const answer = xhr.response || {};
        if (xhr.status < 300) return resolve(answer);
        if (xhr.status === 401 || (xhr.status === 403 && !answer.least_role && answer.code === "forbidden")) return reject(new Error(texts.session));
        return reject(new Error([answer.detail || `HTTP ${xhr.status}`, answer.hint].filter(Boolean).join(" – ")));
      };
      xhr.onerror = () => reject(new Error(texts.lost));
      xhr.onabort = () => reject(new Error(texts.stopped));
      xhr.send(content);
    });
  }

  // One thing at a time: a second click finds the buttons disabled.
  async function busy(work) {
    if (start.disabled) return;
    start.disabled = estimate.disabled = true;
    fail("");
    try {
      await work();
    } catch (error) {
      fail(error.message);
    } finally {
      request = null;
      start.disabled = estimate.disabled = false;
      sending.hidden = stop.hidden = true;
    }
  }

  // ---- the estimate: of all files while they are small, else of a sample by its share of the bytes ----

  function sample() {
    if (total() <= limits.forecast) return files;
    const shuffled = files.map((entry) => [Math.random(), entry]).sort((a, b) => a[0] - b[0]).map((pair) => pair[1]);
    let left = limits.forecast;
    return shuffled.filter((entry) => entry.file.size <= left && (left -= entry.file.size) >= 0);
  }

  estimate.addEventListener("click", () => busy(async () => {
    const some = sample();
    const content = body(some);
    if (files.length && !some.length) return show(forecast, texts.noForecast);
    show(forecast, texts.asking);
    try {
      const answer = await post("dry_run=true", content);
      const scale = files.length ? total() / Math.max(1, some.reduce((sum, entry) => sum + entry.file.size, 0)) : 1;
      const lines = [fill(answer.estimated_s === null ? texts.length : texts.forecast, {
        hours: length(answer.hours * 3600 * scale), time: length(answer.estimated_s * scale),
        count: count(files.length || answer.recordings),
      })];
      if (scale > 1.001) lines.push(fill(texts.sample, { count: count(some.length) }));
      const unknown = answer.unknown - answer.not_audio.length;
      if (unknown > 0) lines.push(fill(texts.unknown, { count: count(unknown) }));
      if (answer.not_audio.length) lines.push(fill(texts.notAudio, { names: firstOf(answer.not_audio) }));
      const lacking = Object.keys(answer.no_channel);
      if (lacking.length) lines.push(fill(texts.noChannel, { names: firstOf(lacking) }));
      if (answer.done) lines.push(fill(texts.done, { count: count(answer.done) }));
      lines.push(fill(texts.basis, { basis: answer.basis }));
      forecast.replaceChildren(...lines.map((line) => Object.assign(document.createElement("p"), { textContent: line })));
    } catch (error) {
      show(forecast, "");
      throw error;
    }
  }));

  // ---- the batch itself ----

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    busy(async () => {
      const bad = [...form.elements].find((element) => element.willValidate && !element.checkValidity());
      if (bad) { bad.focus(); throw new Error(bad.validationMessage); }
      const content = body(files);
      sending.hidden = false;
      stop.hidden = false;
      const bar = field("bar"), sent = field("sent");
      bar.value = 0;
      let at = 0;
      const answer = await post(form.dataset.query, content, (progress) => {
        bar.value = progress.loaded / progress.total;
        const done = progress.loaded >= progress.total;
        if (Date.now() - at < 500 && !done) return; // a reader of the screen is not told each block
        at = Date.now();
        sent.textContent = done ? texts.stored : fill(texts.sending, { done: size(progress.loaded), size: size(progress.total) });
      });
      request = null;
      location.href = new URL(`batches/${encodeURIComponent(answer.id)}`, document.baseURI).href;
    });
  });
  stop.addEventListener("click", () => { if (request) request.abort(); });
  window.addEventListener("beforeunload", (event) => { if (request && !sending.hidden) event.preventDefault(); });
})();
