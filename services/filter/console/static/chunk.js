// A chunk's audio: the waveform with its segments, and playing from a token or a segment.
"use strict";

const audio = document.getElementById("audio");
const wave = document.getElementById("wave");
const begins = Number(wave.dataset.start);
const tokens = [...document.querySelectorAll("#tokens button.token")];
const segments = [...document.querySelectorAll("button.segment")];
let stopAt = Infinity;

function playFrom(start, end) {
  if (typeof stopPlaying === "function") stopPlaying();
  stopAt = end === undefined ? Infinity : end;
  audio.currentTime = start;
  audio.play();
}

// ---- the waveform

function color(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}

const regions = WaveSurfer.Regions.create();
const surfer = WaveSurfer.create({
  container: wave, media: audio, cspNonce: wave.dataset.nonce, height: 96, normalize: true,
  waveColor: color("soft"), progressColor: color("accent"), cursorColor: color("focus"), cursorWidth: 2, plugins: [regions],
});
surfer.on("decode", () => {
  regions.clearRegions();
  for (const button of segments) {
    regions.addRegion({
      start: Number(button.dataset.from), end: Number(button.dataset.to), drag: false, resize: false,
      color: `color-mix(in srgb, ${color(button.dataset.kind)} 22%, transparent)`,
    });
  }
});
surfer.on("interaction", () => { stopAt = Infinity; });

// ---- tokens and segments

document.addEventListener("click", (event) => {
  const token = event.target.closest("#tokens button.token");
  const segment = event.target.closest("button.segment");
  if (token) playFrom(Number(token.dataset.at));
  if (event.target.closest("button.play[data-audio]")) audio.pause();
  if (segment) playFrom(Number(segment.dataset.from), Number(segment.dataset.to));
});

document.getElementById("tokens").addEventListener("keydown", (event) => {
  const moves = { ArrowRight: 1, ArrowLeft: -1, Home: -Infinity, End: Infinity };
  const place = tokens.indexOf(document.activeElement);
  if (!(event.key in moves) || place < 0) return;
  event.preventDefault();
  const next = tokens[Math.min(tokens.length - 1, Math.max(0, place + moves[event.key]))];
  tokens[place].tabIndex = -1;
  next.tabIndex = 0;
  next.focus();
});

function clock(seconds) {
  const tenths = Math.round(seconds * 10), minutes = Math.floor(tenths / 600), hours = Math.floor(minutes / 60);
  const rest = ((tenths % 600) / 10).toFixed(1).padStart(4, "0");
  return `${hours ? `${hours}:${String(minutes % 60).padStart(2, "0")}` : minutes}:${rest}`;
}

audio.addEventListener("timeupdate", () => {
  const now = audio.currentTime;
  document.getElementById("clock").textContent = clock(begins + now);
  if (now >= stopAt) {
    audio.pause();
    stopAt = Infinity;
  }
  let said = null;
  for (const token of tokens) if (Number(token.dataset.at) <= now + 0.02) said = token;
  for (const token of tokens) token.classList.toggle("now", token === said && !audio.paused);
});

document.querySelector("[data-speed]").addEventListener("click", (event) => {
  const slow = event.currentTarget.getAttribute("aria-pressed") !== "true";
  event.currentTarget.setAttribute("aria-pressed", String(slow));
  audio.preservesPitch = true;
  audio.playbackRate = slow ? 0.7 : 1;
});
