// A job's curves: buckets of the record, and behind them each step as it happens.

import { get } from "./api.js";
import { settled } from "./dom.js";

const POINTS = 150; // buckets a curve, at most: two pixels each in a narrow panel
const DIGITS = 4;
const LIVE = 400; // steps that may come behind them before the buckets are made anew

/** One bucket of one curve, or one live step: `{step, x, mean, min, max}`, in the order of the steps. */
export class Curves {
  constructor(jobId, wanted, changed = () => {}) {
    this.path = `/v1/jobs/${jobId}/metrics`;
    this.wanted = new Set(wanted);
    this.names = []; // all that the run has
    this.changed = changed;
    this.axis = "step";
    this.zoom = null; // [from, to] on the axis, or null
    this.points = new Map();
    this.nextStep = 0;
    this.readTo = 0; // what `nextStep` was when all were read last
    this.ends = new Map(); // curve that was read after the others -> the first step behind what was read
    this.live = 0;
    this.waiting = []; // steps that arrive while buckets are under way
    this.loading = null;
    this.late = new Set(); // curves that are wanted now and were not read with the others
  }

  has(name) {
    return this.names.includes(name) || this.of(name).length > 0;
  }

  of(name) {
    return this.points.get(name) ?? [];
  }

  last(name) {
    return this.of(name).at(-1)?.mean ?? null;
  }

  /** Read all anew; a call while one is under way makes it void. */
  async load() {
    this.late.clear();
    const answer = await this.read([...this.wanted]);
    if (!answer) return;
    this.points = new Map(Object.entries(answer.series).map(([name, buckets]) => [name, rows(buckets)]));
    this.names = answer.names;
    this.nextStep = this.readTo = answer.next_step;
    this.ends.clear();
    this.live = 0;
    this.taken();
  }

  /** Have these curves too; those asked for at one time are read together. */
  want(names) {
    for (const name of names) {
      if (this.wanted.has(name)) continue;
      this.wanted.add(name);
      this.late.add(name);
    }
    if (this.late.size) this.soon();
  }

  soon = settled(30, () => this.more());

  /** Read the curves that came late; the others stay as they are. */
  async more() {
    if (this.loading) return this.soon();
    const names = [...this.late];
    if (!names.length) return;
    this.late.clear();
    try {
      const answer = await this.read(names);
      if (!answer) return this.again(); // another reading began meanwhile, perhaps without these
      for (const [name, buckets] of Object.entries(answer.series)) {
        this.points.set(name, rows(buckets));
        this.ends.set(name, answer.next_step);
      }
      this.taken();
    } catch {
      setTimeout(() => this.again(), 3000);
    }
  }

  async read(names) {
    const [from, to] = this.zoom ?? [null, null];
    this.loading?.abort();
    const mine = (this.loading = new AbortController());
    const columns = this.axis === "step" ? ["mean", "min", "max"] : ["x", "mean", "min", "max"];
    try {
      return await get(this.path, { max_points: POINTS, names: names.join(), x: this.axis, from, to, columns, digits: DIGITS }, mine.signal);
    } catch (error) {
      if (error.name === "AbortError") return null;
      if (this.loading === mine) this.loading = null;
      throw error;
    }
  }

  taken() {
    this.loading = null;
    const waiting = this.waiting.splice(0);
    for (const line of waiting) this.add(line);
    this.changed();
  }

  /** A step of the stream. One that is done again takes the place of itself and all behind it. */
  add(line) {
    if (this.loading) {
      this.waiting.push(line);
      return;
    }
    if (this.zoom) return;
    if (line.step < this.nextStep - 1 || this.live >= LIVE) {
      this.again();
      return;
    }
    const x = { step: line.step, time: line.time, tokens: line.metrics.num_tokens ?? null }[this.axis];
    for (const [name, value] of Object.entries(line.metrics)) {
      if (!this.wanted.has(name) || this.late.has(name) || line.step < (this.ends.get(name) ?? 0)) continue;
      if (!this.points.has(name)) this.points.set(name, []);
      const curve = this.points.get(name);
      while (curve.length && curve.at(-1).step >= line.step) curve.pop();
      curve.push({ step: line.step, x, mean: value, min: value, max: value });
    }
    this.nextStep = line.step + 1;
    this.live += 1;
    this.changed();
  }

  again() {
    this.load().catch(() => setTimeout(() => this.again(), 3000));
  }
}

function rows(buckets) {
  return buckets.step.map((step, i) => ({ step, x: buckets.x ? buckets.x[i] : step, mean: buckets.mean[i], min: buckets.min[i], max: buckets.max[i] }));
}
