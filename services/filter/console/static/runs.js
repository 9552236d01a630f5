// Curves of a run with uPlot; they grow while the run goes on. Colours are those of the page's theme.
"use strict";

(() => {
  const box = document.getElementById("curves"), note = document.getElementById("curves-note");
  const texts = JSON.parse(box.dataset.texts);
  const EVERY_MS = 10000;
  const charts = [];
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  function definitions(answer) {
    const training = answer.training, validation = answer.validation, found = [];
    if ((training.step || []).length) {
      found.push({ title: texts.loss, columns: [training.step, training.loss, training.ce, training.kl],
        series: [["loss", "--accent"], ["ce", "--insert"], ["kl", "--substitute"]] });
    }
    if ((validation.step || []).length) {
      found.push({ title: texts.validation, columns: [validation.step, validation.mer], series: [["MER", "--accent"]], points: true, zero: true });
    }
    if ((training.step || []).length) {
      found.push({ title: texts.norm, columns: [training.step, training.gradient_norm], series: [[texts.norm, "--substitute"]] });
      found.push({ title: texts.rate, columns: [training.step, training.learning_rate], series: [[texts.rate, "--insert"]], zero: true });
      found.push({ title: texts.speed, columns: [training.step, training.tokens_per_s], series: [[texts.speed, "--accent"]], zero: true });
    }
    return found;
  }

  function axis(more) {
    return { stroke: colour("--soft"), grid: { stroke: colour("--line"), width: 1 }, ticks: { stroke: colour("--line"), width: 1 }, ...more };
  }

  function frame(definition) {
    const figure = document.createElement("figure");
    const heading = document.createElement("figcaption");
    heading.textContent = definition.title;
    figure.append(heading);
    box.append(figure);
    return figure;
  }

  const brief = (value) => value !== 0 && Math.abs(value) < 0.01 ? value.toExponential(1) : Number(value.toPrecision(4)).toString();

  function draw(definition, figure) {
    const series = definition.series.map(([label, name]) => ({ label, stroke: colour(name), width: 1.5,
      points: { show: Boolean(definition.points) }, value: (_, value) => value === null ? "–" : brief(value) }));
    return new uPlot({
      width: figure.clientWidth - 16, height: 200, scales: { x: { time: false }, y: definition.zero ? { range: (_, low, high) => [Math.min(0, low), high || 1] } : {} },
      axes: [axis({}), axis({ size: 62, values: (_, splits) => splits.map(brief) })],
      series: [{ label: texts.step }, ...series], cursor: { drag: { x: true, y: false } }, hooks: legendHooks,
    }, definition.columns, figure);
  }

  function update(answer) {
    const all = definitions(answer);
    if (all.length !== charts.length) {
      for (const chart of charts.splice(0)) chart.destroy();
      box.replaceChildren();
      const frames = all.map(frame); // all of them first: their widths depend on how many there are
      all.forEach((definition, index) => charts.push(draw(definition, frames[index])));
    } else {
      charts.forEach((chart, index) => chart.setData(all[index].columns));
    }
    note.textContent = !all.length ? texts.none : answer.stride > 1 ? texts.points.replace("{count}", answer.stride) : "";
  }

  async function look() {
    let state = "running";
    try {
      const response = await fetch(box.dataset.url);
      if (!response.ok) throw new Error(response.status);
      const answer = await response.json();
      state = answer.state;
      update(answer);
    } catch {
      note.textContent = texts.lost;
    }
    if (state === "running") setTimeout(look, EVERY_MS);
  }

  let width = 0;
  new ResizeObserver(() => {
    if (box.clientWidth === width) return;
    width = box.clientWidth;
    for (const chart of charts) chart.setSize({ width: chart.root.parentElement.clientWidth - 16, height: 200 });
  }).observe(box);
  look(); // a deferred script: the page is there
})();
