// The last ten minutes: a thin line of moments that is always here, and whole frames, few here and all on the server.
//
// A moment is {number, mono, time, term, leader, marks}; there is one for each frame that came live, and for those
// that the server names after a reload. Whole frames are kept for the last FRAMES_MAX that were shown or came; others
// are asked for when somebody scrubs there. So the page's memory stays the same, however long it is open.

import { markOf } from "./words.js";

export const TAPE_S = 600;
const MOMENTS_MAX = 8000;
const FRAMES_MAX = 240;
const PAGE_FRAMES = 40;
const FRAMES_BEFORE = 12;

export class Tape {
  /** @param {(command: object) => Promise<object>} send asks the server. */
  constructor(send) {
    this.send = send;
    this.clear(null);
  }

  /** Forget all: the server runs anew. */
  clear(run) {
    this.run = run;
    this.moments = [];
    this.frames = new Map();
    this.version = 0;
  }

  get first() {
    return this.moments[0] ?? null;
  }

  get last() {
    return this.moments[this.moments.length - 1] ?? null;
  }

  /** Take a frame that came live. */
  add(frame) {
    if (frame.run !== this.run) this.clear(frame.run);
    if (this.last && frame.number <= this.last.number) return;
    this.moments.push(momentOf(frame));
    const oldest = frame.mono - TAPE_S;
    // In pieces, because each removal at the front moves all the others.
    if (this.moments.length > MOMENTS_MAX || this.moments[0].mono < oldest - 10) {
      const kept = this.moments.findIndex((moment) => moment.mono >= oldest);
      this.moments.splice(0, Math.max(kept, this.moments.length - MOMENTS_MAX + 500));
    }
    this.keep(frame);
    this.version += 1;
  }

  /** Keep a whole frame; the ones that were used longest ago go. */
  keep(frame) {
    this.frames.delete(frame.number);
    this.frames.set(frame.number, frame);
    for (const number of this.frames.keys()) {
      if (this.frames.size <= FRAMES_MAX) break;
      this.frames.delete(number);
    }
  }

  /** Learn from the server what was before this page was opened. */
  async fetchPast() {
    const kept = await this.send({ command: "frames-kept" });
    if (!kept.count) return;
    const { marks } = await this.send({ command: "frames-marks" });
    if (this.run !== null && this.run !== kept.run) return;
    this.run = kept.run;
    const known = new Set(this.moments.map((moment) => moment.number));
    const moments = marks.filter((mark) => !known.has(mark.number)).map((mark) => ({ ...mark, marks: kindsOf(mark.events.map((event) => ({ event }))) }));
    if (!known.has(kept.first) && !moments.some((moment) => moment.number === kept.first)) {
      const { frames } = await this.send({ command: "frames-page", from: kept.first, count: 1 });
      moments.push(...frames.map(momentOf).filter((moment) => !known.has(moment.number)));
    }
    // Sorted anew, because frames came live meanwhile.
    this.moments = [...moments, ...this.moments].sort((a, b) => a.number - b.number);
    this.version += 1;
  }

  /** Return the place of the last moment that is not after a frame number, or -1. */
  placeOf(number) {
    return lastNotAfter(this.moments, number, (moment) => moment.number);
  }

  /** Return which frame was shown at a time, between moments by the rule of three. */
  numberAt(mono) {
    const place = Math.max(0, lastNotAfter(this.moments, mono, (moment) => moment.mono));
    const [before, after] = [this.moments[place], this.moments[place + 1]];
    if (!before) return null;
    if (!after || after.mono <= before.mono || mono <= before.mono) return before.number;
    const share = (mono - before.mono) / (after.mono - before.mono);
    return Math.floor(before.number + share * (after.number - before.number));
  }

  /** Return a frame, asking the server if it is not here; null if the server has it no more. */
  async frameAt(number) {
    // A page of frames may be cut short, so the second question is for this one alone.
    for (const from of [Math.max(this.first?.number ?? 1, number - FRAMES_BEFORE), number]) {
      if (this.frames.has(number)) break;
      const { frames } = await this.send({ command: "frames-page", from, count: PAGE_FRAMES });
      for (const frame of frames) this.keep(frame);
    }
    return this.frames.get(number) ?? null;
  }

  /** Return a frame's number, or the nearest one that there is. */
  within(number) {
    return Math.min(Math.max(number, this.first?.number ?? 1), this.last?.number ?? number);
  }

  /** Return the number of the next moment with a mark before or after a frame, or null. */
  markFrom(number, step) {
    const isThere = (moment) => moment.marks.length > 0 && (step > 0 ? moment.number > number : moment.number < number);
    return (step > 0 ? this.moments.find(isThere) : this.moments.findLast(isThere))?.number ?? null;
  }

  /** Return events up to a frame, newest first, of the frames that are here: at most `most` that pass. */
  eventsUpTo(number, most, isWanted) {
    const found = [];
    const numbers = [...this.frames.keys()].filter((each) => each <= number).sort((a, b) => b - a);
    for (const each of numbers) {
      const { events } = this.frames.get(each);
      for (let place = events.length - 1; place >= 0; place--) {
        if (!isWanted(events[place])) continue;
        found.push({ number: each, event: events[place] });
        if (found.length >= most) return found;
      }
    }
    return found;
  }
}

function momentOf(frame) {
  return {
    number: frame.number, mono: frame.mono, time: frame.time, term: frame.term, leader: frame.leader,
    marks: kindsOf(frame.events), rates: frame.rates,
  };
}

const NO_MARKS = [];

function kindsOf(events) {
  const kinds = new Set(events.map((event) => markOf(event.event)).filter(Boolean));
  return kinds.size ? [...kinds] : NO_MARKS;
}

function lastNotAfter(items, value, of) {
  let [low, high] = [0, items.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (of(items[middle]) <= value) low = middle + 1;
    else high = middle;
  }
  return low - 1;
}
