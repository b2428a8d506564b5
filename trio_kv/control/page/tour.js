// Takes somebody through a tour: shows a step, does what it says, waits until that can be seen, and undoes it at the end.

import { byId, make, setText } from "./dom.js";
import { TOURS } from "./tours.js";

const EVENTS_MAX = 400;

export class Tour {
  /**
   * @param {object} on `send(command)`, `ask(action, key, value)`, `present()` returns the newest frame, `goLive()`, `say(text)`.
   */
  constructor(on) {
    this.on = on;
    this.box = byId("tour");
    this.tour = null;
  }

  get isOpen() {
    return !this.box.hidden;
  }

  /** Show which tours there are. */
  open() {
    this.tour = null;
    const items = TOURS.map((tour) => make("li", {}, make("button", { type: "button", onclick: () => this.start(tour) }, tour.title)));
    this.fill("Guided tour", [
      make("p", {}, "Each tour does something real to the cluster that you see, and undoes it at the end. Best when nobody else needs it."),
      make("ul", { class: "tours" }, ...items),
    ], [make("button", { type: "button", onclick: () => this.close() }, "Close")]);
    this.box.focus();
  }

  /** Leave, and undo what is still broken. */
  async close() {
    const { tour, memory } = this;
    this.tour = null;
    this.box.hidden = true;
    byId("tour-open").focus();
    if (tour) await this.undo(tour, memory);
  }

  async undo(tour, memory) {
    const frame = this.on.present();
    if (!frame || tour.isUndone(memory, frame)) return;
    try {
      for (const command of tour.undo(memory)) await this.on.send(command);
      this.on.say("What the tour did was undone.");
    } catch (error) {
      this.on.say(`The tour could not undo all it did: ${error.message}`);
    }
  }

  start(tour) {
    const frame = this.on.present();
    this.on.goLive();
    if (!frame || frame.nodes.length < tour.least || frame.leader === null || frame.nodes.some((node) => node.state !== "up")) {
      this.on.say("A tour needs a leader and all of at least three nodes running: make everything sound first.");
      return setText(this.box.querySelector("p"), "A tour needs a leader, and all of at least three nodes running. Make everything sound first, then come back.");
    }
    this.tour = tour;
    this.memory = {};
    this.show(0);
  }

  show(place) {
    this.place = place;
    this.events = [];
    this.isSeen = false;
    const { tour, memory } = this;
    const step = tour.steps[place];
    step.start?.(memory, this.on.present());
    this.isDone = !step.act && !step.ask;
    this.doButton = this.isDone ? null : make("button", { type: "button", class: "primary", onclick: () => this.do(step) }, step.button);
    const isLast = place + 1 === tour.steps.length;
    this.nextButton = make("button", { type: "button", onclick: () => (isLast ? this.close() : this.show(place + 1)) }, isLast ? "End the tour" : "Next");
    this.state = make("p", { class: "tour-state", role: "status" });
    this.words = make("p", {});
    this.fill(`${tour.title}, ${place + 1} of ${tour.steps.length}`, [
      make("h3", {}, step.title), this.words,
      make("p", { class: "section" }, `Raft paper, ${step.section}`), this.state,
    ], [this.doButton, this.nextButton, isLast ? null : make("button", { type: "button", onclick: () => this.close() }, "Leave and undo")].filter(Boolean));
    this.update();
    this.box.focus();
  }

  fill(title, content, buttons) {
    this.box.replaceChildren(make("h2", { id: "tour-title" }, title), ...content, make("div", { class: "row" }, ...buttons));
    this.box.hidden = false;
  }

  async do(step) {
    this.doButton.disabled = true;
    try {
      const asked = step.isAskedAtOnce ? step.ask(this.memory) : null;
      const frame = this.on.present();
      const sent = (step.act?.(this.memory, frame) ?? []).map((command) => this.on.send(command));
      // In the same moment: the server carries commands out in the order in which they come.
      if (asked) this.on.ask(...asked);
      await Promise.all(sent);
      if (step.ask && !asked) await this.on.ask(...step.ask(this.memory));
      this.isDone = true;
    } catch (error) {
      setText(this.state, `Not done: ${error.message}`);
      this.doButton.disabled = false;
      return;
    }
    this.update();
  }

  /** Look at a new frame: can be seen what the step tells of? */
  render(frame) {
    if (!this.tour) return;
    this.events.push(...frame.events);
    if (this.events.length > EVENTS_MAX) this.events.splice(0, this.events.length - EVENTS_MAX);
    this.update(frame);
  }

  update(frame = this.on.present()) {
    if (!this.tour) return;
    const step = this.tour.steps[this.place];
    if (this.isDone && !this.isSeen && (!step.look || step.look(this.memory, frame, this.events))) this.isSeen = true;
    setText(this.words, step.text(this.memory));
    setText(this.state, !this.isDone ? "" : this.isSeen ? (step.look ? "✓ There it is." : "") : "Waiting until it can be seen …");
    this.nextButton.disabled = !this.isDone;
    this.nextButton.classList.toggle("primary", this.isSeen);
  }
}
