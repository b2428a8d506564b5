// The feed of events: newest first, in rows that are made once. Filters say what is shown; its pause is its own.

import { make, setAttribute, setText } from "./dom.js";
import { termClass } from "./ring.js";
import { clockTime, FAMILIES, familyOf, sentence } from "./words.js";

const ROWS = 60;
const PAUSE_MS = 300;
const CHOICES = { all: "everything", ...Object.fromEntries(Object.keys(FAMILIES).map((family) => [family, family])), others: "others" };

export class Feed {
  /**
   * @param {object} parts elements: list, kind, find, pause, note.
   * @param {View} view what is shown.
   */
  constructor({ list, kind, find, pause, note }, view) {
    this.view = view;
    this.note = note;
    this.shown = [];
    this.newest = 0;
    this.isPaused = false;
    this.missed = 0;
    this.timer = null;
    this.drawnMs = -Infinity;
    this.rows = Array.from({ length: ROWS }, () => this.buildRow(list));
    kind.append(...Object.entries(CHOICES).map(([value, text]) => make("option", { value }, text)));
    kind.addEventListener("change", () => this.filter(kind.value, find.value));
    find.addEventListener("input", () => this.filter(kind.value, find.value));
    pause.addEventListener("click", () => {
      this.isPaused = !this.isPaused;
      setAttribute(pause, "aria-pressed", String(this.isPaused));
      setText(pause, this.isPaused ? "Go on" : "Pause");
      this.missed = 0;
      if (!this.isPaused) this.again();
    });
    this.filter("all", "");
  }

  buildRow(list) {
    const time = make("button", { type: "button", class: "feed-time", onclick: () => this.view.show(row.number) });
    const text = make("span", { class: "feed-text" });
    const item = make("li", { hidden: true }, time, text);
    const row = { item, time, text, number: 0 };
    list.append(item);
    return row;
  }

  filter(family, find) {
    const words = find.trim().toLowerCase();
    this.isWanted = (event) => (family === "all" || familyOf(event) === family)
      && (!words || `${event.event} ${sentence(event)}`.toLowerCase().includes(words));
    this.again();
  }

  /** Find anew what is shown. */
  again() {
    const number = this.view.frame?.number;
    if (number === undefined) return;
    this.shown = this.view.tape.eventsUpTo(number, ROWS, this.isWanted);
    this.newest = number;
    this.draw();
  }

  /** Take a frame that came live: each one counts, also where several come before one is drawn. */
  take(frame) {
    if (this.isPaused) this.missed += frame.events.length + frame.events_left_out;
    if (this.isPaused || !this.view.isLive) return;
    this.newest = frame.number;
    const note = frame.events_left_out ? `${frame.events_left_out} events of the last moment are not shown: they came too fast.` : "";
    setText(this.note, note);
    const fresh = frame.events.filter(this.isWanted).map((event) => ({ number: frame.number, event })).reverse();
    if (!fresh.length) return;
    this.shown = [...fresh, ...this.shown].slice(0, ROWS);
    this.drawSoon();
  }

  /** Show what there was up to a frame, if another one is shown than was taken last. */
  render(frame, isLive) {
    if (this.isPaused && isLive) setText(this.note, `Paused; ${this.missed.toLocaleString("en")} events since then.`);
    else if (frame.number !== this.newest) this.again();
  }

  /** Draw, but when events flood in only so often that it can be read. */
  drawSoon() {
    if (this.timer !== null) return;
    const waitMs = this.drawnMs + PAUSE_MS - performance.now();
    if (waitMs <= 0) return this.draw();
    this.timer = setTimeout(() => this.draw(), waitMs);
  }

  draw() {
    clearTimeout(this.timer);
    this.timer = null;
    this.drawnMs = performance.now();
    this.rows.forEach((row, place) => {
      const shown = this.shown[place];
      if (row.item.hidden === Boolean(shown)) row.item.hidden = !shown;
      if (!shown) return;
      row.number = shown.number;
      const { event } = shown;
      setText(row.time, clockTime(event.time));
      setText(row.text, sentence(event));
      setAttribute(row.item, "class", `level-${event.level} ${event.term === undefined ? "" : termClass(event.term)}`);
    });
  }
}
