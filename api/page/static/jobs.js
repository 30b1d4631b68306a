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

class Jobs {
  constructor(main) {
    this.jobs = [];
    this.picked = new Set(); // ids of the jobs to compare
    this.curves = new Map(); // job id -> {step, reward, pace}
    this.status = h("select", { id: "status-filter", onchange: () => this.reload() }, h("option", { value: "" }, "all states"), STATUSES.map(([value, label]) => h("option", { value }, label)));
    this.search = h("input", { type: "search", id: "search", placeholder: "name, model, algorithm", "aria-label": "Search", oninput: settled(100, () => this.draw()) });
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
    const page = await get("/v1/jobs", { limit: PAGE, status: this.status.value, after: this.jobs.at(-1).id });
    this.jobs.push(...page.data);
    this.hasMore = page.has_more;
    this.draw();
    await this.lookAtCurves();
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

  shown() {
    const words = this.search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const text = (job) => [job.name, job.id, job.spec.model.path, job.spec.dataset.path, job.spec.algorithm.type, job.status].join(" ").toLowerCase();
    return this.jobs.filter((job) => words.every((word) => text(job).includes(word)));
  }

  draw() {
    const jobs = this.shown();
    this.more.hidden = !this.hasMore;
    if (!this.jobs.length && !this.status.value) return fill(this.body, start());
    if (!jobs.length) return fill(this.body, h("p", { class: "quiet" }, "No job is like that."));
    const names = ["Job", "State", "Progress", "Reward", "Attempt", "Age"];
    const head = h("tr", {}, names.map((name) => h("th", { scope: "col" }, name)));
    const focused = document.activeElement?.id;
    fill(this.body, h("table", { class: "jobs" }, h("thead", {}, head), h("tbody", {}, jobs.map((job) => this.row(job)))));
    if (focused) document.getElementById(focused)?.focus(); // it was drawn anew under the reader's hands
  }

  pick(id, is) {
    this.picked[is ? "add" : "delete"](id);
    this.compare.hidden = this.picked.size < 2;
    this.compare.href = `/compare?jobs=${[...this.picked].join()}`;
    this.compare.textContent = `Compare ${this.picked.size}`;
  }

  row(job) {
    const curve = this.curves.get(job.id);
    const running = !ENDED.includes(job.status);
    const left = running && curve?.pace ? `, ${duration(curve.pace * (job.steps - job.step))} left` : "";
    const why = job.status_reason && job.status !== "succeeded" ? h("span", { class: "why quiet", title: job.status_reason.message }, job.status_reason.message) : null;
    const pick = h("input", { type: "checkbox", id: `pick-${job.id}`, checked: this.picked.has(job.id), "aria-label": `Compare ${job.name ?? job.id}`, onchange: (event) => this.pick(job.id, event.target.checked) });
    return h(
      "tr",
      { data: { job: job.id } },
      h("th", { scope: "row", class: "name" }, pick, h("a", { id: `open-${job.id}`, href: `/jobs/${job.id}` }, job.name ?? job.id), h("span", { class: "quiet" }, `${job.spec.algorithm.type} · ${job.spec.model.path.split("/").at(-1)}`)),
      h("td", {}, h("span", { class: `badge ${statusTone(job.status)}` }, statusWord(job.status), running && job.phase ? ` · ${phaseWord(job.phase)}` : ""), why),
      h("td", {}, h("progress", { max: job.steps, value: job.step, "aria-label": "steps done" }), h("span", { class: "quiet" }, `${number(job.step)} of ${number(job.steps)}${left}`)),
      h("td", {}, curve ? spark(curve.reward) : h("span", { class: "quiet" }, "–")),
      h("td", {}, job.attempt || "–"),
      h("td", {}, h("time", { datetime: job.created_at, title: clock(job.created_at) }, age(job.created_at))),
    );
  }
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
