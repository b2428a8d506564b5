// Which moment is shown: the present, or one that is held. Holding it freezes the view, never the cluster.

import { showMoment } from "./address.js";

export class View {
  /**
   * @param {Tape} tape all moments.
   * @param {object} on what to call: `change()` when something else is to be drawn, `say(text)` for a person.
   */
  constructor(tape, on) {
    this.tape = tape;
    this.on = on;
    this.present = null;
    this.clear();
  }

  /** Go back to the present: the server runs anew. */
  clear() {
    this.held = null;
    this.wanted = null;
    this.isFetching = false;
  }

  /** The frame that is shown, or null before the first one. */
  get frame() {
    return this.held ?? this.present;
  }

  get isLive() {
    return this.held === null && this.wanted === null;
  }

  /** The number of the moment that is shown or asked for. */
  get number() {
    return this.wanted ?? this.frame?.number ?? null;
  }

  /** Take a frame that came live. */
  take(frame) {
    this.present = frame;
    this.on.change();
  }

  /** Freeze what is shown. */
  hold() {
    if (!this.isLive || !this.present) return;
    this.held = this.present;
    this.changed();
  }

  /** Show the present again. */
  goLive() {
    if (this.isLive) return;
    this.clear();
    this.changed();
  }

  /** Show a moment by its number, as soon as its frame is here. */
  async show(number) {
    this.wanted = this.tape.within(number);
    this.on.change();
    if (this.isFetching) return;
    this.isFetching = true;
    try {
      // Somebody who scrubs asks for many; only the newest wish counts.
      while (this.wanted !== null) {
        const number = this.wanted;
        const frame = await this.tape.frameAt(number);
        if (this.wanted !== number) continue;
        this.wanted = null;
        if (frame) this.held = frame;
        else this.on.say("That moment is not kept any more.");
      }
    } catch (error) {
      this.wanted = null;
      this.on.say(error.message);
    } finally {
      this.isFetching = false;
      this.changed();
    }
  }

  /** Go some steps; from the present, too. */
  step(steps) {
    if (this.number !== null) this.show(this.number + steps);
  }

  /** Go to the next mark: an election, a crash, a fault. */
  stepToMark(direction) {
    if (this.number === null) return;
    const number = this.tape.markFrom(this.number, direction);
    if (number !== null) this.show(number);
    else this.on.say(direction > 0 ? "Nothing else happened until now." : "Nothing else happened in the time that is kept.");
  }

  changed() {
    showMoment(this.held ? { run: this.held.run, frame: this.held.number } : null);
    this.on.change();
  }
}
