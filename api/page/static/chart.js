// One panel: curves of a run with their bands, drawn by uPlot, and what can be done with them.

import { download, h, whenSeen } from "./dom.js";
import { number } from "./words.js";

const HEIGHT = 190;
const SYNC = "run";

/** uPlot is a script of its own time that makes one global. */
await new Promise((resolve, reject) => {
  const script = h("script", { src: new URL("vendor/uplot/uPlot.iife.min.js", import.meta.url) });
  script.addEventListener("load", resolve);
  script.addEventListener("error", () => reject(new Error("The chart library could not be loaded.")));
  document.head.append(script);
});

const colour = (index, strength = 1) => {
  const base = getComputedStyle(document.documentElement).getPropertyValue(`--curve-${(index % 6) + 1}`).trim();
  return strength === 1 ? base : `${base}${Math.round(strength * 255).toString(16).padStart(2, "0")}`;
};
const style = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

/** Exponential mean whose start is not drawn to zero; gaps stay gaps. */
export function smooth(values, weight) {
  if (weight === 0) return values;
  let [sum, mass] = [0, 0];
  return values.map((value) => {
    if (value === null) return null;
    sum = weight * sum + (1 - weight) * value;
    mass = weight * mass + (1 - weight);
    return sum / mass;
  });
}

export class Panel {
  /** `view`: {smoothing, log, axis} that all panels share; `zoomed(from, to)` is called when one drags over a stretch. */
  constructor(definition, curves, view, zoomed) {
    Object.assign(this, { definition, curves, view, zoomed });
    this.plot = null;
    this.adopted = false; // whether what is seen was drawn by the service
    this.drawing = h("div", { class: "drawing", role: "img", "aria-label": `${definition.title}: nothing is drawn yet`, tabindex: 0, onkeydown: (event) => this.key(event), onblur: () => this.look(null) });
    this.legend = h("ul", { class: "legend" }, h("li", {}, "Loading…"));
    this.element = h(
      "section",
      { class: definition.wide ? "panel wide" : "panel", "aria-label": definition.title, tabindex: -1, data: { panel: definition.title } },
      h(
        "header",
        {},
        h("h3", { title: definition.help ?? "" }, definition.title),
        h(
          "span",
          { class: "tools" },
          h("button", { type: "button", class: "small ghost", onclick: () => this.csv(), "aria-label": `${definition.title} as CSV` }, "CSV"),
          h("button", { type: "button", class: "small ghost", onclick: () => this.png(), "aria-label": `${definition.title} as PNG` }, "PNG"),
        ),
      ),
      h("p", { class: "help" }, definition.help ?? ""),
      this.drawing,
      this.legend,
    );
    new ResizeObserver(() => this.resize()).observe(this.drawing);
    whenSeen(this.element, () => this.curves.want(this.names));
  }

  /** Show what the service drew, until there is a chart. */
  adopt(drawn) {
    this.drawing.setAttribute("aria-label", drawn.getAttribute("aria-label"));
    this.drawing.append(...drawn.childNodes);
    this.adopted = true;
  }

  get series() {
    return this.definition.series.filter((one) => this.curves.of(one.name).length);
  }

  /** Every metric that is drawn here. */
  get names() {
    return this.definition.series.flatMap((one) => [one.name, ...(one.band ?? []), ...(one.spread ? [one.spread] : [])]);
  }

  /** Whether the run has nothing for this panel, or nothing is known of it yet. */
  get isEmpty() {
    return !this.definition.series.some((one) => this.curves.has(one.name));
  }

  /** Columns that all curves share: x, and of each curve what is drawn. */
  columns() {
    const names = this.series.flatMap((one) => [one.name, ...(one.band ?? []), ...(one.spread ? [one.spread] : [])]);
    const byStep = new Map();
    for (const name of names) for (const point of this.curves.of(name)) byStep.set(point.step, point.x);
    const steps = [...byStep.keys()].filter((step) => byStep.get(step) !== null).sort((a, b) => a - b);
    const column = (name, part) => {
      const points = new Map(this.curves.of(name).map((point) => [point.step, point[part]]));
      return steps.map((step) => points.get(step) ?? null);
    };
    return { steps, x: steps.map((step) => byStep.get(step)), column };
  }

  draw() {
    this.element.hidden = this.isEmpty && !this.adopted;
    if (!this.series.length || this.drawing.clientWidth === 0) return;
    const { lines, bands, data } = this.plan();
    const shape = JSON.stringify([lines.map((line) => line.key), this.view]);
    if (this.plot && shape === this.shape) this.plot.setData(data);
    else this.build(lines, bands, data);
    this.shape = shape;
    this.tell(this.plot.cursor.idx ?? null);
    this.describe();
  }

  /** What is drawn: line by line, the bands between lines, and the data of both. */
  plan() {
    const { x, column } = this.columns();
    const lines = [];
    const bands = [];
    const data = [x];
    const add = (key, values, options) => {
      lines.push({ key, ...options });
      return data.push(this.view.log ? values.map((value) => (value > 0 ? value : null)) : values) - 1;
    };
    let below = x.map(() => 0);
    this.series.forEach((one) => {
      const index = this.definition.series.indexOf(one);
      const raw = column(one.name, "mean");
      if (one.stack) {
        const base = below;
        below = smooth(raw, this.view.smoothing).map((value, i) => (value ?? 0) + base[i]);
        add(one.name, below, { label: one.label, index, fill: 0.85, width: 0 });
        return;
      }
      if (one.points) {
        add(one.name, raw, { label: one.label, index, points: true });
        return;
      }
      const [low, high] = this.edges(one, raw, column);
      if (low) {
        const top = add(`${one.name} high`, high, { index, hidden: true });
        bands.push({ series: [top, add(`${one.name} low`, low, { index, hidden: true })], fill: colour(index, 0.13) });
      }
      if (one.dotted) {
        add(one.name, raw, { label: one.label, index, width: 1.8, dotted: true });
        return;
      }
      if (this.view.smoothing) add(`${one.name} raw`, raw, { index, faint: true });
      add(one.name, smooth(raw, this.view.smoothing), { label: one.label, index, width: 1.8 });
    });
    if (lines.some((line) => line.fill)) {
      lines.reverse(); // from the top of the stack down, so that each lies before the one above it
      data.push(...data.splice(1).reverse());
    }
    return { lines, bands, data };
  }

  /** A curve's band: of other metrics, of its spread, or what lies within its buckets. */
  edges(one, raw, column) {
    if (one.band) {
      const [low, high] = [column(one.band[0], "min"), column(one.band[1], "max")];
      return [low, high];
    }
    if (one.spread) {
      const spread = column(one.spread, "mean");
      const at = (sign) => raw.map((value, i) => (value === null || spread[i] === null ? value : value + sign * spread[i]));
      return [at(-1), at(1)];
    }
    const [low, high] = [column(one.name, "min"), column(one.name, "max")];
    return low.some((value, i) => value !== high[i]) ? [low, high] : [null, null];
  }

  build(lines, bands, data) {
    this.plot?.destroy();
    const axis = { stroke: style("--quiet"), grid: { stroke: style("--line"), width: 1 }, ticks: { show: false }, font: "11px system-ui, sans-serif" };
    const options = {
      width: this.drawing.clientWidth,
      height: this.definition.wide ? HEIGHT + 40 : HEIGHT,
      padding: [10, 8, 0, 0],
      legend: { show: false },
      cursor: { sync: { key: SYNC, scales: ["x", null] }, drag: { x: true, y: false, setScale: false }, points: { size: 6 } },
      scales: { x: { time: this.view.axis === "time" }, y: { distr: this.view.log ? 3 : 1, range: this.view.log ? undefined : range } },
      axes: [
        { ...axis, size: 26, values: this.view.axis === "time" ? undefined : (_, ticks) => ticks.map((tick) => number(tick)) },
        { ...axis, size: 52, values: (_, ticks) => ticks.map((tick) => (tick === null ? "" : number(tick))) },
      ],
      series: [{}, ...lines.map(drawn)],
      bands,
      hooks: {
        setCursor: [(plot) => this.tell(plot.cursor.idx)],
        setSelect: [(plot) => this.selected(plot)],
      },
    };
    this.drawing.replaceChildren();
    this.adopted = false;
    this.plot = new window.uPlot(options, data, this.drawing);
  }

  selected(plot) {
    const { left, width } = plot.select;
    if (width < 8) return;
    const [from, to] = [plot.posToVal(left, "x"), plot.posToVal(left + width, "x")];
    plot.setSelect({ left: 0, width: 0, top: 0, height: 0 }, false);
    this.zoomed(from, to);
  }

  /** Arrows move the cursor, + and - zoom at it; the legend says what is there. */
  key(event) {
    const last = (this.plot?.data[0].length ?? 0) - 1;
    const by = { ArrowLeft: -1, ArrowRight: 1, PageUp: -10, PageDown: 10, Home: -Infinity, End: Infinity }[event.key];
    if (last < 0 || !(by || event.key === "+" || event.key === "-")) return;
    event.preventDefault();
    if (by) return this.look(Math.min(last, Math.max(0, (this.plot.cursor.idx ?? last) + by)));
    if (event.key === "-") return this.zoomed(null);
    const x = this.plot.data[0];
    const [at, half] = [x[this.plot.cursor.idx ?? last], (x[last] - x[0]) / 4];
    this.zoomed(at - half, at + half);
  }

  /** Put the cursor of all panels on a point; null: nowhere. */
  look(index) {
    if (!this.plot) return;
    const left = index === null ? -10 : this.plot.valToPos(this.plot.data[0][index], "x");
    this.plot.setCursor({ left, top: index === null ? -10 : 10 }, true, true); // and tell the other panels
  }

  /** The legend, with the values under the cursor or the last ones. */
  tell(index = null) {
    const { x, steps, column } = this.columns();
    const at = index ?? x.length - 1;
    const items = this.series.map((one) => {
      const values = column(one.name, "mean");
      const value = index === null ? values.findLast((each) => each !== null) : values[at];
      const mark = h("i", { class: `mark curve-${(this.definition.series.indexOf(one) % 6) + 1}` });
      return h("li", {}, mark, h("span", {}, one.label), h("b", {}, number(value ?? null)));
    });
    this.legend.replaceChildren(h("li", { class: "at" }, index === null ? `step ${number(steps.at(-1))}` : `at step ${number(steps[at] ?? null)}`), ...items);
  }

  /** For who cannot see the drawing. */
  describe() {
    const { steps } = this.columns();
    const words = this.series.map((one) => `${one.label} ${number(this.curves.last(one.name))}`);
    this.drawing.setAttribute("aria-label", `${this.definition.title} up to step ${steps.at(-1)}: ${words.join(", ")}`);
    this.drawing.dataset.lastStep = steps.at(-1);
    this.drawing.dataset.points = steps.length;
  }

  resize() {
    if (!this.plot) this.draw();
    else if (![0, this.plot.width].includes(this.drawing.clientWidth)) this.plot.setSize({ width: this.drawing.clientWidth, height: this.plot.height });
  }

  /** Draw anew in the colours that hold now. */
  restyle() {
    this.shape = null;
    this.draw();
  }

  csv() {
    const { steps, x, column } = this.columns();
    const names = this.series.map((one) => one.name);
    const parts = ["mean", "min", "max"];
    const head = ["step", this.view.axis === "step" ? [] : [this.view.axis], names.flatMap((name) => parts.map((part) => `${name} ${part}`))].flat();
    const values = names.flatMap((name) => parts.map((part) => column(name, part)));
    const lines = steps.map((step, i) => [step, this.view.axis === "step" ? [] : [x[i]], values.map((each) => each[i] ?? "")].flat());
    download(`${this.file}.csv`, new Blob([[head, ...lines].map((line) => line.join(",")).join("\n"), "\n"], { type: "text/csv" }));
  }

  png() {
    const drawn = this.plot?.ctx.canvas;
    if (!drawn) return;
    const room = 34 * devicePixelRatio;
    const canvas = h("canvas", { width: drawn.width, height: drawn.height + room });
    const context = canvas.getContext("2d");
    context.fillStyle = style("--card");
    context.fillRect(0, 0, canvas.width, canvas.height);
    context.fillStyle = style("--ink");
    context.font = `600 ${14 * devicePixelRatio}px system-ui, sans-serif`;
    context.fillText(this.definition.title, 10 * devicePixelRatio, 22 * devicePixelRatio);
    context.drawImage(drawn, 0, room);
    canvas.toBlob((blob) => download(`${this.file}.png`, blob));
  }

  get file() {
    return this.definition.title.toLowerCase().replace(/[^a-z0-9]+/g, "-");
  }
}

function drawn(line) {
  const stroke = colour(line.index);
  if (line.hidden) return { stroke: "transparent", width: 0, points: { show: false }, spanGaps: true };
  if (line.points) return { stroke, width: 0, paths: () => null, points: { show: true, size: 8, fill: stroke, width: 0 } };
  if (line.faint) return { stroke: colour(line.index, 0.28), width: 1, points: { show: false }, spanGaps: true };
  if (line.fill) return { stroke: "transparent", width: 0, fill: stroke, points: { show: false }, spanGaps: true };
  return { stroke, width: line.width, spanGaps: true, points: { show: (plot) => line.dotted || plot.data[0].length < 3, size: 6, fill: stroke } };
}

/** A little air above and below; a flat curve lies in the middle. */
function range(_, low, high) {
  if (low === null || high === null) return [0, 1];
  const air = low === high ? Math.abs(low) * 0.1 || 0.5 : (high - low) * 0.06;
  return [low >= 0 && low - air < 0 ? 0 : low - air, high + air];
}
