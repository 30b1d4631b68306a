// One run: what it is doing, its curves, and what it has left.

import { get, post, Stream } from "./api.js";
import { Panel } from "./chart.js";
import { Curves } from "./curves.js";
import { fill, h, notice } from "./dom.js";
import { benchmarkPanels, panels } from "./panels.js";
import { Top } from "./top.js";
import { ENDED, number } from "./words.js";

const LOOK_MS = 10_000;
const ALWAYS = ["reward", "reward_std", "eval/reward", "step_time"]; // what the first panel needs

export async function show(main, jobId) {
  const curves = new Curves(jobId, ALWAYS);
  const read = curves.load();
  read.catch(() => {}); // told where it is awaited
  const asked = get(`/v1/jobs/${jobId}`);
  const news = new News(jobId);
  const below = import("./below.js");
  below.catch(() => {});
  try {
    const job = await asked;
    document.title = `${job.name ?? job.id} · MHPO`;
    const run = new Run(main.querySelector(".run"), job, curves);
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

class Run {
  constructor(element, job, curves) {
    Object.assign(this, { element, job, curves });
    this.view = { smoothing: Number(localStorage.getItem("smoothing") ?? 0.5), log: false, axis: "step" };
    this.sections = panels(job.spec);
    this.drawSoon = once(() => this.draw());
    curves.changed = this.drawSoon;
    const find = (id) => element.querySelector(`#${id}`);
    [this.charts, this.fault, this.empty, this.said] = ["charts", "fault", "no-step", "said"].map(find);
    this.connection = element.querySelector(".connection");
    this.top = new Top(find("top"), find("stale"), job.id, { act: (action) => this.act(action), show: (metric) => this.show(metric) });
    this.panels = [];
    this.below = null; // what lies below the curves, once they are drawn
    this.bindControls(find);
    const drawn = this.charts.querySelector(".drawing"); // by the service
    const first = this.section(this.sections[0]);
    if (drawn) this.panels[0][0].adopt(drawn);
    fill(this.charts, first);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.each((panel) => panel.restyle()));
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
    await Promise.all([this.load(read), this.top.open()]); // it stands above: what is drawn does not move
    this.draw();
    await painted();
    this.charts.append(...this.sections.slice(1).map((section) => this.section(section)));
    this.drawSoon();
    await this.addBelow(below);
    await news.begun;
    news.follow(this);
    if (news.from && (news.from.step + 1 !== this.curves.readTo || news.from.attempt !== attempt)) this.curves.again(); // a step fell between
    setInterval(() => ENDED.includes(this.job.status) || this.top.soon(), LOOK_MS); // a worker that is silent sends no news
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
    await Promise.all([this.load(), this.top.load(), this.below?.loadAgain()]);
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
    if (kind === "metrics") this.curves.add(data);
    if (kind === "status") Object.assign(this.job, data);
    if (kind !== "log") this.top.soon();
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
  }

  async act(action) {
    if (action === "cancel" && !confirm("Stop this run? What it has done so far is kept.")) return;
    try {
      const job = await post(`/v1/jobs/${this.job.id}/${action}`);
      if (job.id !== this.job.id) return location.assign(`/jobs/${job.id}`); // retried: the new one
      Object.assign(this.job, job);
      await this.top.load();
    } catch (error) {
      fill(this.said, notice("bad", error.message));
    }
  }

  // The curves' controls

  bindControls(find) {
    const smoothing = find("smoothing");
    const shown = this.element.querySelector("output[for=smoothing]");
    const smoothed = () => (shown.textContent = number(this.view.smoothing));
    smoothing.value = this.view.smoothing;
    smoothed();
    smoothing.addEventListener("input", () => {
      this.view.smoothing = Number(smoothing.value);
      smoothed();
      localStorage.setItem("smoothing", smoothing.value);
      this.drawSoon();
    });
    find("axis").addEventListener("change", ({ target }) => {
      this.view.axis = this.curves.axis = target.value;
      this.zoom(null);
    });
    find("log-y").addEventListener("change", ({ target }) => {
      this.view.log = target.checked;
      this.drawSoon();
    });
    this.whole = find("whole");
    this.whole.addEventListener("click", () => this.zoom(null));
    this.others = find("others");
    this.choice = find("more");
    this.choice.addEventListener("change", () => {
      const name = this.choice.value;
      this.choice.value = "";
      if (name && !this.others.querySelector(`[data-panel="${CSS.escape(name)}"]`)) this.addPanel(name);
    });
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
