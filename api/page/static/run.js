// One run: what it is doing, its curves, and what it has left.

import { get, post, Stream } from "./api.js";
import { Panel } from "./chart.js";
import { Curves } from "./curves.js";
import { fill, h, notice } from "./dom.js";
import { benchmarkPanels, panels } from "./panels.js";
import { Warnings } from "./warnings.js";
import { age, clock, duration, ENDED, faultWord, number, phaseWord, statusTone, statusWord } from "./words.js";

const ALWAYS = ["reward", "reward_std", "eval/reward", "step_time"]; // what the header and the first panel need

export async function show(main, jobId) {
  fill(main, h("p", { class: "quiet", role: "status" }, "Loading the run…"));
  const curves = new Curves(jobId, ALWAYS);
  const read = curves.load();
  read.catch(() => {}); // told where it is awaited
  const asked = get(`/v1/jobs/${jobId}`);
  const news = new News(jobId);
  const below = import("./below.js");
  below.catch(() => {});
  try {
    const job = await asked;
    const run = new Run(job, actions(), curves);
    document.title = `${job.name ?? job.id} · MHPO`;
    fill(main, run.element);
    await run.open(news, read, below);
  } catch (error) {
    news.stream.close();
    throw error;
  }
}

/** The stream, begun while the first curves are read; its news wait until there is someone to tell. */
class News {
  constructor(jobId) {
    this.waiting = [];
    this.from = null; // the job's status where the stream begins
    this.begun = new Promise((resolve) => (this.first = resolve)); // its place is taken, or it cannot be had
    const later = (name) => (...given) => {
      if (given[0] === "status") this.from ??= given[1];
      if (this.run) this.run[name](...given);
      else this.waiting.push([name, given]);
      this.first();
    };
    this.stream = new Stream(jobId, { news: later("news"), state: (is, error) => (is ? this.connected(later) : later("state")(is, error)), lost: () => location.reload() });
  }

  /** A connection alone says nothing of its place: that comes with the first piece. */
  connected(later) {
    if (this.run) later("state")(true, null);
    else this.waiting.push(["state", [true, null]]);
  }

  follow(run) {
    this.run = run;
    for (const [name, given] of this.waiting.splice(0)) run[name](...given);
  }
}

/** What this service lets one do with a job. */
const actions = () => document.querySelector('meta[name="job-actions"]').content.split(" ").filter(Boolean);

class Run {
  constructor(job, routes, curves) {
    Object.assign(this, { job, routes, curves });
    this.view = { smoothing: Number(localStorage.getItem("smoothing") ?? 0.5), log: false, axis: "step" };
    this.sections = panels(job.spec);
    this.drawSoon = once(() => this.draw());
    curves.changed = this.drawSoon;
    this.warnings = new Warnings(job, (metric) => this.show(metric));
    this.panels = [];
    this.below = null; // what lies below the curves, once they are drawn
    this.build();
  }

  build() {
    const { job } = this;
    this.connection = h("span", { class: "connection", role: "status" }, "connecting…");
    this.head = h("div", { class: "card head" });
    this.empty = h("p", { class: "notice", role: "status" }, "No step is done yet: curves begin with the first.");
    this.fault = h("div", {});
    this.charts = h("div", {}, this.section(this.sections[0]));
    const jumps = ["Curves", "Scores", "Rollouts", "Events", "Log", "Checkpoints", "Configuration"];
    this.element = h(
      "div",
      { class: "run" },
      this.head,
      this.warnings.element,
      h("nav", { class: "jumps", "aria-label": "Parts of this page" }, jumps.map((name) => h("a", { href: `#${name.toLowerCase()}` }, name)), this.connection),
      h("section", { id: "curves", "aria-label": "Curves" }, this.controls(), this.fault, this.empty, this.charts, this.more()),
    );
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.each((panel) => panel.restyle()));
    this.header();
  }

  section({ title, panels }) {
    const made = panels.map((panel) => this.panel(panel));
    this.panels.push(made);
    return h("section", { class: "curves", "aria-label": title }, h("h2", {}, title), h("div", { class: "grid" }, made.map((panel) => panel.element)));
  }

  panel(definition) {
    return new Panel(definition, this.curves, this.view, (from, to) => this.zoom(from === null ? null : [from, to]));
  }

  each(work) {
    this.panels.flat().forEach(work);
  }

  /** What is seen first is drawn first; all else is made when that is on the screen. */
  async open(news, read, below) {
    this.stream = news.stream;
    const { attempt } = this.job;
    await Promise.all([this.load(read), this.warnings.load()]); // they stand above: what is drawn does not move
    this.draw();
    await painted();
    this.charts.append(...this.sections.slice(1).map((section) => this.section(section)));
    this.drawSoon();
    await this.addBelow(below);
    await news.begun;
    news.follow(this);
    if (news.from && (news.from.step + 1 !== this.curves.readTo || news.from.attempt !== attempt)) this.curves.again(); // a step fell between
    setInterval(() => this.header(), 5000);
    setInterval(() => ENDED.includes(this.job.status) || this.warnings.load(), 15_000); // a worker that is silent sends no news
    this.below?.open();
    if (location.hash.length > 1) document.getElementById(location.hash.slice(1))?.scrollIntoView(); // it was not there before
  }

  /** Where the service went away meanwhile, what is there already stays and goes on. */
  async addBelow(loading) {
    try {
      const { Below } = await loading;
      this.below = new Below(this.job);
      this.element.append(...this.below.sections);
    } catch (error) {
      const again = h("button", { type: "button", onclick: () => location.reload() }, "Load the page anew");
      this.element.append(notice("bad", `The rest of this page could not be loaded: ${error.message} `, again));
    }
  }

  /** All that has been seen, anew. */
  async loadAll() {
    await Promise.all([this.load(), this.warnings.load(), this.below?.loadAgain()]);
  }

  async load(read = this.curves.load()) {
    try {
      await read;
      fill(this.fault);
    } catch (error) {
      const again = h("button", { type: "button", onclick: () => this.load() }, "Try again");
      fill(this.fault, notice("bad", `The curves could not be read: ${error.message} `, again));
    }
  }

  news(kind, data, id) {
    if (this.readWithoutStream) this.loadAll();
    this.readWithoutStream = false;
    if (kind === "metrics") {
      this.curves.add(data);
      this.warnings.soon();
    } else if (kind === "status") {
      Object.assign(this.job, data);
      this.header();
    } else if (kind === "event" && data.level !== "info") {
      this.warnings.soon();
    }
    this.below?.news(kind, data, id);
  }

  state(connected, error) {
    this.connection.className = connected ? "connection on" : "connection off";
    this.connection.textContent = connected ? "live" : `disconnected: ${error?.message ?? "the stream ended"} Trying again…`;
    if (connected || this.stream?.last) return;
    this.readWithoutStream = true;
  }

  draw() {
    this.empty.hidden = this.curves.nextStep > 1 || this.job.step > 0;
    this.addBenchmarks();
    this.each((panel) => panel.draw());
    for (const section of this.element.querySelectorAll(".curves")) {
      section.hidden = [...section.querySelectorAll(".panel")].every((panel) => panel.hidden);
    }
    const known = new Set([...this.choice.options].map((option) => option.value));
    this.choice.append(...this.curves.names.filter((name) => !known.has(name)).map((name) => h("option", { value: name }, name)));
    this.header();
  }

  // The header

  header() {
    const { job } = this;
    const state = JSON.stringify([job.status, job.phase, job.status_reason, job.cancel_requested]);
    if (state !== this.headerState) this.buildHeader(); // else what has the focus, or is read out, stays
    this.headerState = state;
    const ended = ENDED.includes(job.status);
    const until = job.finished_at ? Date.parse(job.finished_at) : Date.now();
    const facts = [
      ["Step", `${number(job.step)} of ${number(job.steps)}`],
      ended ? null : ["Time left", this.timeLeft()],
      [ended ? "Took" : "Running", job.started_at ? duration((until - Date.parse(job.started_at)) / 1000) : "not yet"],
      ["Attempt", job.attempt ? String(job.attempt) : "none yet"],
      ["Algorithm", job.spec.algorithm.type],
      ["Reward", number(this.curves.last("reward"))],
    ];
    this.progress.value = job.steps ? Math.min(1, job.step / job.steps) : 0;
    fill(this.facts, facts.filter(Boolean).map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value))));
  }

  buildHeader() {
    const { job } = this;
    this.progress = h("progress", { max: 1, "aria-label": "Steps done" });
    this.facts = h("dl", { class: "facts" });
    fill(
      this.head,
      h(
        "div",
        { class: "title" },
        h("h1", {}, job.name ?? job.id),
        h("span", { class: `badge ${statusTone(job.status)}`, id: "status", role: "status" }, statusWord(job.status), job.phase && !ENDED.includes(job.status) ? ` · ${phaseWord(job.phase)}` : ""),
        this.buttons(),
      ),
      h("p", { class: "quiet" }, h("code", {}, job.id), ` made ${age(job.created_at)} (${clock(job.created_at)})`),
      this.progress,
      this.facts,
      this.reason(),
    );
  }

  reason() {
    const reason = this.job.status_reason;
    if (!reason) return this.job.cancel_requested && !ENDED.includes(this.job.status) ? notice("", "It was asked to stop, and saves itself first.") : null;
    const again = reason.hint ? ` ${reason.hint}` : reason.retryable ? " The same job may succeed when it is tried again." : "";
    return notice(this.job.status === "failed" ? "bad" : "", h("b", {}, `${reason.code}: `), reason.message, h("span", { class: "quiet" }, ` (${faultWord(reason.fault)})${again}`));
  }

  timeLeft() {
    const { job } = this;
    if (!job.started_at) return "it waits";
    const times = this.curves.of("step_time").slice(-20).map((point) => point.mean).filter((time) => time !== null);
    if (!times.length) return "after the first step";
    return `about ${duration((times.reduce((sum, time) => sum + time, 0) / times.length) * (job.steps - job.step))}`;
  }

  buttons() {
    const { job } = this;
    const fits = { pause: ["running", "queued"].includes(job.status), resume: job.status === "paused", cancel: !ENDED.includes(job.status) && !job.cancel_requested, retry: ["failed", "cancelled"].includes(job.status) };
    const words = { pause: "Pause", resume: "Resume", cancel: "Cancel", retry: "Retry" };
    const wanted = this.routes.filter((action) => fits[action]);
    const buttons = wanted.map((action) => h("button", { type: "button", class: action === "cancel" ? "danger" : "", onclick: () => this.act(action) }, words[action]));
    return h("span", { class: "actions" }, buttons, h("a", { class: "button", href: `/jobs/new?from=${job.id}` }, "Clone"));
  }

  async act(action) {
    if (action === "cancel" && !confirm("Stop this run? What it has done so far is kept.")) return;
    try {
      const job = await post(`/v1/jobs/${this.job.id}/${action}`);
      if (job.id !== this.job.id) return location.assign(`/jobs/${job.id}`); // retried: the new one
      Object.assign(this.job, job);
      this.header();
    } catch (error) {
      this.head.append(notice("bad", error.message));
    }
  }

  // The curves' controls

  controls() {
    const smoothing = h("input", { type: "range", min: 0, max: 0.98, step: 0.01, value: this.view.smoothing, id: "smoothing" });
    const shown = h("output", { for: "smoothing" }, number(this.view.smoothing));
    smoothing.addEventListener("input", () => {
      this.view.smoothing = Number(smoothing.value);
      shown.textContent = number(this.view.smoothing);
      localStorage.setItem("smoothing", smoothing.value);
      this.drawSoon();
    });
    const axis = h("select", { id: "axis" }, [["step", "step"], ["time", "time"], ["tokens", "tokens"]].map(([value, label]) => h("option", { value }, label)));
    axis.addEventListener("change", () => {
      this.view.axis = this.curves.axis = axis.value;
      this.zoom(null);
    });
    const log = h("input", { type: "checkbox", id: "log-y", onchange: (event) => ((this.view.log = event.target.checked), this.drawSoon()) });
    this.whole = h("button", { type: "button", class: "small", hidden: true, onclick: () => this.zoom(null) }, "Show the whole run");
    return h(
      "div",
      { class: "controls" },
      h("label", {}, "Smoothing ", smoothing, shown),
      h("label", {}, "Over ", axis),
      h("label", {}, log, " log y"),
      this.whole,
      h("span", { class: "quiet hint" }, "Drag over a stretch to zoom; by keyboard: arrows, + and −."),
    );
  }

  zoom(stretch) {
    this.curves.zoom = stretch;
    this.whole.hidden = stretch === null;
    return this.load();
  }

  /** A panel of each benchmark that has a score, as soon as it has one. */
  addBenchmarks() {
    const there = new Set(this.panels[0].map((panel) => panel.definition.title));
    for (const definition of benchmarkPanels(this.curves.names).filter((each) => !there.has(each.title))) {
      this.panels[0].push(this.panel(definition));
      this.element.querySelector(".curves .grid").append(this.panels[0].at(-1).element);
    }
  }

  /** Go to the panel of a metric; one that has none gets its own. */
  async show(metric) {
    const find = () => this.panels.flat().find((panel) => panel.definition.series.some((one) => one.name === metric));
    if (!find()) this.addPanel(metric);
    const { element } = find();
    element.scrollIntoView({ block: "center" });
    element.focus({ preventScroll: true });
  }

  addPanel(name) {
    const panel = this.panel({ title: name, series: [{ name, label: name }] });
    this.panels.push([panel]);
    this.others.append(panel.element);
  }

  /** Any other metric of the run as a panel of its own. */
  more() {
    this.choice = h("select", { id: "more" }, h("option", { value: "" }, "choose a metric"));
    this.others = h("div", { class: "grid" });
    this.choice.addEventListener("change", () => {
      const name = this.choice.value;
      this.choice.value = "";
      if (name && !this.others.querySelector(`[data-panel="${CSS.escape(name)}"]`)) this.addPanel(name);
    });
    return h("section", { "aria-label": "Any other curve" }, h("label", { class: "quiet" }, "Another curve: ", this.choice), this.others);
  }
}

/** When what is there is on the screen; at once where the page is not looked at, for then nothing is drawn. */
const painted = () =>
  new Promise((done) => {
    if (document.hidden) return done();
    document.addEventListener("visibilitychange", done, { once: true });
    requestAnimationFrame(() => setTimeout(done));
  });

/** At most one call a frame. */
function once(work) {
  let asked = false;
  return () => {
    if (asked) return;
    asked = true;
    requestAnimationFrame(() => {
      asked = false;
      work();
    });
  };
}
