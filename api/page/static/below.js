// What lies below a run's curves: scores, rollouts, events, log, checkpoints, and what was asked for.

import { configuration } from "./configuration.js";
import { h, settled, whenSeen } from "./dom.js";
import { Events } from "./events.js";
import { Log } from "./log.js";
import { Checkpoints, Evaluations } from "./results.js";
import { Rollouts } from "./rollouts.js";

export class Below {
  constructor(job) {
    this.evaluations = new Evaluations(job);
    this.rollouts = new Rollouts(job);
    this.events = new Events(job);
    this.log = new Log(job);
    this.checkpoints = new Checkpoints(job);
    this.parts = [this.evaluations, this.rollouts, this.events, this.log, this.checkpoints];
    this.sections = [
      part("scores", "Scores", this.evaluations.element),
      part("rollouts", "Rollouts", this.rollouts.element),
      part("events", "Events", this.events.element),
      part("log", "Log", this.log.element),
      part("checkpoints", "Checkpoints", this.checkpoints.element),
      part("configuration", "Configuration", configuration(job)),
    ];
  }

  /** Have each part read when one comes to it. */
  open() {
    for (const each of this.parts) whenSeen(each.element, () => each.load());
  }

  /** All that has been seen, anew. */
  loadAgain() {
    return loaded(this.parts);
  }

  refreshSoon = settled(500, () => loaded([this.evaluations, this.checkpoints])); // they change seldom and are read whole

  news(kind, data, id) {
    if (kind === "metrics") this.rollouts.newStep(data.step);
    else if (kind === "log") this.log.add(data.text, Number(id.split(".")[2]));
    else this.refreshSoon();
    if (kind === "event") this.events.add(data);
  }
}

const loaded = (parts) => Promise.all(parts.filter((each) => each.begun).map((each) => each.load()));

const part = (id, title, ...content) => h("section", { id, class: "part" }, h("h2", {}, title), ...content);
