// Runs over each other: the same curves, where their specs differ, and their scores.

import { get } from "./api.js";
import { Panel } from "./chart.js";
import { Curves } from "./curves.js";
import { fill, h, notice } from "./dom.js";
import { Evaluations, percent } from "./results.js";
import { number, statusTone, statusWord } from "./words.js";

const LOOK_MS = 8000;
const COMPARED = [
  ["Reward", "reward"],
  ["Held-out reward", "eval/reward", { points: true }],
  ["Groups without signal", "frac_reward_zero_std"],
  ["Gradient norm, on-policy scale", "grad_norm/on_policy"],
  ["How far the policy moved", "ratio/log_abs_mean"],
  ["KL from the base model", "kl"],
  ["KL of the learner from the engine", "kl/rollout"],
  ["Entropy", "entropy"],
  ["Completion length", "completions/mean_length"],
  ["Truncated", "completions/clipped_ratio"],
  ["Time of a step", "step_time"],
  ["Tokens a second", "perf/tokens_per_second"],
];

export async function show(main) {
  document.title = "Compare · MHPO";
  fill(main, h("p", { class: "quiet", role: "status" }, "Loading the runs…"));
  const ids = (new URLSearchParams(location.search).get("jobs") ?? "").split(",").filter(Boolean);
  if (ids.length < 2) return fill(main, h("h1", {}, "Compare"), notice("", "Choose two or more runs in the list of ", h("a", { href: "/" }, "jobs"), "."));
  const jobs = await Promise.all(ids.map((id) => get(`/v1/jobs/${id}`)));
  const runs = new Overlay(jobs);
  const view = { smoothing: Number(localStorage.getItem("smoothing") ?? 0.5), log: false, axis: "step" };
  const panels = COMPARED.map(([title, metric, more]) => new Panel({ title, series: jobs.map((job, i) => ({ ...more, name: `${metric} of ${job.id}`, label: label(job, i) })) }, runs, view, () => {}));
  const smoothing = h("input", { type: "range", min: 0, max: 0.98, step: 0.01, value: view.smoothing });
  const draw = () => panels.forEach((panel) => panel.draw());
  smoothing.addEventListener("input", () => ((view.smoothing = Number(smoothing.value)), draw()));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => panels.forEach((panel) => panel.restyle()));
  const scores = jobs.map((job) => new Evaluations(job));
  const state = h("div", {});
  const report = h("div", { id: "report", class: "card scroll" }, h("p", { class: "quiet" }, "Loading…"));
  const list = h("ul", { class: "compared" });
  fill(
    main,
    h("h1", {}, "Compare"),
    list,
    h("div", { class: "controls" }, h("label", {}, "Smoothing ", smoothing)),
    state,
    h("div", { class: "grid" }, panels.map((panel) => panel.element)),
    h("h2", {}, "Where their specs differ"),
    differences(jobs),
    h("h2", {}, "Scores"),
    report,
    jobs.map((job, i) => [h("h3", {}, label(job, i)), scores[i].element]),
  );
  const look = async () => {
    try {
      const now = await Promise.all(ids.map((id) => get(`/v1/jobs/${id}`)));
      fill(list, now.map(summary));
      await Promise.all([runs.load(), versus(report, ids), ...scores.map((each) => each.load())]);
      fill(state, runs.isEmpty ? notice("", "None of these runs has done a step yet.") : null);
      draw();
    } catch (error) {
      fill(state, notice("bad", `Disconnected: ${error.message} Trying again…`));
    }
    setTimeout(look, LOOK_MS);
  };
  await look();
}

const label = (job, i) => `${i + 1}. ${job.name ?? job.id}`;

function summary(job, i) {
  const name = h("a", { href: `/jobs/${job.id}` }, label(job, i));
  const badge = h("span", { class: `badge ${statusTone(job.status)}` }, statusWord(job.status));
  const progress = h("span", { class: "quiet" }, `step ${number(job.step)} of ${number(job.steps)}`);
  return h("li", {}, h("i", { class: `mark curve-${(i % 6) + 1}` }), name, badge, progress);
}

/** The latest scored checkpoint of each run, and whether it differs from the first run's: paired by problem. */
async function versus(element, ids) {
  const { runs, benchmarks } = await get("/v1/compare", { jobs: ids.join() });
  if (!benchmarks.length) return fill(element, h("p", { class: "quiet" }, "No checkpoint of these runs has been scored yet."));
  const head = h("tr", {}, h("th", { scope: "col" }, "Benchmark"), runs.map((run, i) => h("th", { scope: "col" }, `${i + 1}. ${run.label}`)));
  const rows = benchmarks.map((benchmark) => h("tr", {}, h("th", { scope: "row" }, benchmark.name), benchmark.cells.map(score)));
  const help = "The latest scored checkpoint, its 95 % interval over problems, its gain over the model before training, and the difference to the first run: paired by problem (exact McNemar or a bootstrap), significant below p = 0.05.";
  fill(element, h("table", { class: "scores" }, h("thead", {}, head), h("tbody", {}, rows)), h("p", { class: "quiet" }, help));
}

function score(cell) {
  if (!cell) return h("td", { class: "quiet" }, "not scored yet");
  const interval = ` (${percent(cell.ci_low)}–${percent(cell.ci_high)})`;
  const lines = [difference("gain", cell.gain), difference("to the first", cell.versus_first), cell.not_comparable ? h("div", { class: "quiet" }, cell.not_comparable) : null];
  return h("td", {}, h("b", {}, percent(cell.avg)), interval, lines);
}

function difference(what, told) {
  if (!told) return null;
  const sign = told.difference > 0 ? "+" : "";
  const sure = told.significant ? h("b", { class: told.difference > 0 ? "good" : "bad" }, "significant") : "not significant";
  return h("div", { class: "quiet" }, `${what} ${sign}${(told.difference * 100).toFixed(1)} points, p = ${number(told.p_value, 2)}: `, sure);
}

/** The curves of several jobs under names that tell them apart. */
class Overlay {
  constructor(jobs) {
    const metrics = COMPARED.map(([, metric]) => metric);
    this.runs = new Map(jobs.map((job) => [job.id, new Curves(job.id, metrics, () => {})]));
  }

  /** All are read at once. */
  want() {}

  has(name) {
    const [metric, id] = name.split(" of ");
    return this.runs.get(id).has(metric);
  }

  get isEmpty() {
    return [...this.runs.values()].every((curves) => curves.names.length === 0);
  }

  load() {
    return Promise.all([...this.runs.values()].map((curves) => curves.load()));
  }

  of(name) {
    const [metric, id] = name.split(" of ");
    return this.runs.get(id).of(metric);
  }

  last(name) {
    return this.of(name).at(-1)?.mean ?? null;
  }
}

function differences(jobs) {
  const flat = jobs.map((job) => new Map(leaves(job.spec)));
  const places = [...new Set(flat.flatMap((each) => [...each.keys()]))].filter((place) => new Set(flat.map((each) => each.get(place))).size > 1);
  if (!places.length) return h("p", { class: "card quiet" }, "Nowhere: these are runs of one spec.");
  const head = h("tr", {}, h("th", { scope: "col" }, "Field"), jobs.map((job, i) => h("th", { scope: "col" }, label(job, i))));
  const rows = places.map((place) => h("tr", {}, h("th", { scope: "row" }, h("code", {}, place)), flat.map((each) => h("td", {}, h("code", {}, each.get(place) ?? "–")))));
  return h("div", { class: "card scroll" }, h("table", { class: "differences" }, h("thead", {}, head), h("tbody", {}, rows)));
}

/** (dotted place, value as JSON) of all that a document holds. */
function leaves(node, place = "") {
  if (node === null || typeof node !== "object" || Object.keys(node).length === 0) return [[place, JSON.stringify(node)]];
  return Object.entries(node).flatMap(([name, child]) => leaves(child, place ? `${place}.${name}` : name));
}
