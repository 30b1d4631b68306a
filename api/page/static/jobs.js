// All jobs, newest first.

import { get, key } from "./api.js";
import { copyButton, fill, h, notice, settled, svg } from "./dom.js";
import { age, clock, duration, ENDED, number, phaseWord, STATUSES, statusTone, statusWord } from "./words.js";

const PAGE = 50;
const LOOK_MS = 4000;
const EXAMPLE = `{
  "name": "sums",
  "steps": 40,
  "model": {"path": "artifacts/base"},
  "dataset": {"path": "artifacts/sums.jsonl"},
  "rewards": [{"type": "exact"}]
}`;

export function show(main) {
  document.title = "Jobs · MHPO";
  new Jobs(main);
}

/** What a job asks for, and where it runs: `cuda · worker-1 · GPU 0, 1`. */
function device(job) {
  const gpus = job.devices?.length ? `GPU ${job.devices.join(", ")}` : null;
  return [job.spec.resources.device, job.worker, gpus].filter(Boolean).join(" · ");
}

/** Columns of the table: what it is sorted by (null: not at all), and in which direction first. */
const COLUMNS = [
  ["Job", (job) => (job.name ?? job.id).toLowerCase(), 1],
  ["State", (job) => STATUSES.findIndex(([status]) => status === job.status), 1],
  ["Progress", (job) => job.step / job.steps, -1],
  ["Reward", (job, curve) => curve?.reward.findLast((value) => value !== null) ?? -Infinity, -1],
  ["Device", device, 1],
  ["Attempt", (job) => job.attempt, -1],
  ["Age", (job) => -Date.parse(job.created_at), 1],
  ["", null, 1],
];

class Jobs {
  constructor(main) {
    this.jobs = [];
    this.picked = new Set(); // ids of the jobs to compare
    this.curves = new Map(); // job id -> {step, reward, pace}
    this.rows = new Map(); // job id -> Row
    this.order = null; // {column, direction}; null: newest first, as the service gives them
    this.status = h("select", { id: "status-filter", "aria-label": "State", onchange: () => this.reload() }, h("option", { value: "" }, "all states"), STATUSES.map(([value, label]) => h("option", { value }, label)));
    this.search = h("input", { type: "search", id: "search", placeholder: "name, model, algorithm", "aria-label": "Search", oninput: settled(100, () => this.draw()) });
    this.heads = COLUMNS.map(([name, by], column) => h("th", { scope: "col" }, by ? h("button", { type: "button", class: "sort", onclick: () => this.sort(column) }, name) : h("span", { class: "unseen" }, "Actions")));
    this.lines = h("tbody", {});
    this.table = h("table", { class: "jobs" }, h("thead", {}, h("tr", {}, this.heads)), this.lines);
    this.body = h("div", { class: "card scroll" }, h("p", { class: "quiet", role: "status" }, "Loading jobs…"));
    this.compare = h("a", { class: "button", hidden: true });
    this.state = h("div", {});
    this.more = h("button", { type: "button", hidden: true, onclick: () => this.older() }, "Older jobs");
    fill(main, h("div", { class: "toolbar" }, h("h1", {}, "Jobs"), this.search, this.status, this.compare, h("a", { class: "button primary", href: "/jobs/new" }, "New job")), this.state, this.body, this.more);
    document.addEventListener("visibilitychange", () => document.visibilityState === "visible" && this.look());
    this.reload().finally(() => this.again());
  }

  again() {
    setTimeout(async () => {
      if (document.visibilityState === "visible") await this.look();
      this.again();
    }, LOOK_MS);
  }

  async reload() {
    this.jobs = [];
    await this.look();
  }

  /** The newest page anew; older ones stay as they were read. */
  async look() {
    const status = this.status.value;
    try {
      const page = await get("/v1/jobs", { limit: PAGE, status });
      if (status !== this.status.value) return; // an answer to what is no longer asked
      const fresh = new Set(page.data.map((job) => job.id));
      const older = this.jobs.filter((job) => !fresh.has(job.id) && job.created_at < (page.data.at(-1)?.created_at ?? ""));
      if (!older.length) this.hasMore = page.has_more;
      this.jobs = [...page.data, ...older];
      fill(this.state);
      this.draw();
      await this.lookAtCurves();
    } catch (error) {
      fill(this.state, notice("bad", `Disconnected: ${error.message} Trying again…`));
      if (!this.jobs.length) fill(this.body, h("p", { class: "quiet" }, "Jobs are shown when the service answers."));
    }
  }

  async older() {
    try {
      const page = await get("/v1/jobs", { limit: PAGE, status: this.status.value, after: this.jobs.at(-1).id });
      this.jobs.push(...page.data);
      this.hasMore = page.has_more;
      this.draw();
      await this.lookAtCurves();
    } catch (error) {
      fill(this.state, notice("bad", `Older jobs could not be read: ${error.message}`));
    }
  }

  /** Reward curves of the jobs that have moved on. */
  async lookAtCurves() {
    for (const job of this.shown()) {
      if (job.step === 0 || this.curves.get(job.id)?.step === job.step) continue;
      const { series } = await get(`/v1/jobs/${job.id}/metrics`, { names: "reward,step_time", max_points: 60 });
      const paces = series.step_time.mean.filter((pace) => pace !== null).slice(-5);
      const pace = paces.length ? paces.reduce((sum, each) => sum + each, 0) / paces.length : null;
      this.curves.set(job.id, { step: job.step, reward: series.reward.mean, pace });
      this.draw();
    }
  }

  sort(column) {
    const [, , first] = COLUMNS[column];
    const turned = this.order?.column === column;
    if (turned && this.order.direction !== first) this.order = null;
    else this.order = { column, direction: turned ? -first : first };
    this.draw();
  }

  shown() {
    const words = this.search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const text = (job) => [job.name, job.id, job.spec.model.path, job.spec.dataset.path, job.spec.algorithm.type, job.status].join(" ").toLowerCase();
    const jobs = this.jobs.filter((job) => words.every((word) => text(job).includes(word)));
    if (!this.order) return jobs;
    const by = (job) => COLUMNS[this.order.column][1](job, this.curves.get(job.id));
    const compared = (one, other) => (by(one) < by(other) ? -1 : by(one) > by(other) ? 1 : 0);
    return jobs.sort((one, other) => this.order.direction * compared(one, other));
  }

  draw() {
    const jobs = this.shown();
    this.more.hidden = !this.hasMore;
    if (!this.jobs.length && !this.status.value) return fill(this.body, start());
    if (!jobs.length) return fill(this.body, h("p", { class: "quiet" }, "No job is like that."));
    this.heads.forEach((head, column) => {
      const sorted = this.order?.column === column ? (this.order.direction > 0 ? "ascending" : "descending") : null;
      if (sorted) head.setAttribute("aria-sort", sorted);
      else head.removeAttribute("aria-sort");
    });
    const rows = jobs.map((job) => this.row(job));
    const there = [...this.lines.children];
    if (rows.length !== there.length || rows.some((row, i) => row !== there[i])) this.lines.replaceChildren(...rows);
    if (!this.table.isConnected) fill(this.body, this.table);
  }

  row(job) {
    if (!this.rows.has(job.id)) this.rows.set(job.id, new Row(job, this.picked.has(job.id), (is) => this.pick(job.id, is)));
    return this.rows.get(job.id).show(job, this.curves.get(job.id));
  }

  pick(id, is) {
    this.picked[is ? "add" : "delete"](id);
    this.compare.hidden = this.picked.size < 2;
    this.compare.href = `/compare?jobs=${[...this.picked].join()}`;
    this.compare.textContent = `Compare ${this.picked.size}`;
  }
}

/** A job's line. Only a cell whose content is another is made anew: what one is about to press stays where it is. */
class Row {
  constructor(job, picked, pick) {
    const name = job.name ?? job.id;
    const box = h("input", { type: "checkbox", id: `pick-${job.id}`, checked: picked, "aria-label": `Compare ${name}`, onchange: (event) => pick(event.target.checked) });
    const what = h("span", { class: "quiet" }, `${job.spec.algorithm.type} · ${job.spec.model.path.split("/").at(-1)}`);
    const head = h("th", { scope: "row", class: "name" }, box, h("a", { href: `/jobs/${job.id}` }, name), what);
    const clone = h("td", { class: "clone" }, h("a", { href: `/jobs/new?from=${job.id}`, "aria-label": `Clone ${name}` }, "Clone"));
    this.cells = Object.fromEntries(["state", "progress", "reward", "device", "attempt", "age"].map((cell) => [cell, h("td", { class: cell })]));
    this.told = {};
    this.element = h("tr", { data: { job: job.id } }, head, Object.values(this.cells), clone);
  }

  show(job, curve) {
    const running = !ENDED.includes(job.status);
    const left = running && curve?.pace ? `, ${duration(curve.pace * (job.steps - job.step))} left` : "";
    const progress = `${number(job.step)} of ${number(job.steps)}${left}`;
    const phase = running && job.phase ? ` · ${phaseWord(job.phase)}` : "";
    const why = job.status_reason && job.status !== "succeeded" ? job.status_reason.message : null;
    this.put("state", [job.status, phase, why, job.warnings], () => state(job, phase, why));
    this.put("progress", progress, () => [h("progress", { max: job.steps, value: job.step, "aria-label": "steps done" }), h("span", { class: "quiet" }, progress)]);
    this.put("reward", curve?.reward, () => (curve ? spark(curve.reward) : h("span", { class: "quiet" }, "–")));
    this.put("device", device(job), () => device(job));
    this.put("attempt", job.attempt, () => String(job.attempt || "–"));
    this.put("age", age(job.created_at), () => h("time", { datetime: job.created_at, title: clock(job.created_at) }, age(job.created_at)));
    return this.element;
  }

  put(cell, content, make) {
    const told = JSON.stringify(content ?? null);
    if (this.told[cell] === told) return;
    this.told[cell] = told;
    fill(this.cells[cell], make());
  }
}

function state(job, phase, why) {
  const badge = h("span", { class: `badge ${statusTone(job.status)}` }, statusWord(job.status), phase);
  const warned = job.warnings ? h("a", { class: "tag warn", href: `/jobs/${job.id}#warnings` }, job.warnings === 1 ? "1 warning" : `${number(job.warnings)} warnings`) : null;
  return [badge, " ", warned, why ? h("span", { class: "why quiet", title: why }, why) : null];
}

/** A curve in the size of a word, with its last value. */
function spark(values) {
  const known = values.filter((value) => value !== null);
  const [low, high] = [Math.min(...known), Math.max(...known)];
  const x = (i) => (values.length > 1 ? (i / (values.length - 1)) * 130 : 65);
  const y = (value) => (high === low ? 15 : 28 - ((value - low) / (high - low)) * 26);
  const line = values.map((value, i) => (value === null ? "" : `L${x(i).toFixed(1)} ${y(value).toFixed(1)}`)).join("");
  const label = `reward from ${number(known[0])} to ${number(known.at(-1))}`;
  const drawing = svg("svg", { class: "spark", viewBox: "0 0 130 30", preserveAspectRatio: "none", role: "img", "aria-label": label }, svg("path", { d: line.replace("L", "M") }));
  return [drawing, h("span", { class: "quiet" }, number(known.at(-1)))];
}

function start() {
  const bearer = key() ? ' \\\n  -H "authorization: Bearer $MHPO_API_KEY"' : "";
  const curl = `curl ${location.origin}/v1/jobs${bearer} \\\n  -H "content-type: application/json" \\\n  -d '${EXAMPLE}'`;
  return h(
    "div",
    { class: "start" },
    h("h2", {}, "No job yet"),
    h("p", {}, "Write one under ", h("a", { href: "/jobs/new" }, "New job"), ", or send one:"),
    h("pre", {}, curl),
    copyButton("Copy", () => curl),
  );
}
