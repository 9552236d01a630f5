// One audio element for the play buttons of lists: a second press, or another button, stops it.
"use strict";

const player = new Audio();
let playing = null;

function stopPlaying() {
  player.pause();
  if (playing) playing.setAttribute("aria-pressed", "false");
  playing = null;
}

document.addEventListener("click", (event) => {
  const button = event.target.closest("button.play[data-audio]");
  if (!button) return;
  const again = button === playing;
  stopPlaying();
  if (again) return;
  playing = button;
  button.setAttribute("aria-pressed", "true");
  player.src = button.dataset.audio;
  player.play().catch(() => { if (playing === button) stopPlaying(); });
});
player.addEventListener("ended", stopPlaying);
// a list that was replaced takes its audio with it
document.addEventListener("htmx:afterSwap", () => { if (playing && !playing.isConnected) stopPlaying(); });
