// Messages on their way: a fixed number of shapes that are moved, and never made or removed.
//
// A frame brings a sample of the messages of the last tenth of a second. In truth they take less than a millisecond;
// here they are slowed down so that one can follow them. Where more fly than there are shapes, the rest is not drawn.
// Each shape is a layer of its own, moved by the browser's compositor: a flight costs this page nothing once it began.

import { makeSvg, setAttribute, stillness } from "./dom.js";
import { NODE_RADIUS } from "./layout.js";
import { MESSAGE_SHAPES } from "./shapes.js";
import { KINDS, kindOf } from "./words.js";

const FLIGHTS_MAX = 36;
const FLIGHT_MS = 460;
const FRAME_MS = 100;
const LANE = 5;
const LOST_AT = 0.5;

export class Flights {
  /**
   * @param {HTMLElement} layer lies over the drawing; the shapes are put there.
   * @param {SVGSVGElement} svg the drawing, whose places are used.
   */
  constructor(layer, svg) {
    this.layer = layer;
    this.svg = svg;
    this.next = 0;
    this.still = null;
    this.flights = Array.from({ length: FLIGHTS_MAX }, () => {
      const path = makeSvg("path");
      const shape = makeSvg("svg", { class: "flight", viewBox: "-10 -10 20 20" }, path);
      layer.append(shape);
      return { shape, path, animation: null, endMs: 0, look: "" };
    });
    new ResizeObserver(() => this.measure()).observe(layer);
  }

  /** Learn where the drawing lies in the layer, and how large it is. What flies was sent to where things were before. */
  measure() {
    const matrix = this.svg.getScreenCTM();
    const box = this.layer.getBoundingClientRect();
    if (!matrix) return;
    this.scale = matrix.a;
    this.x = matrix.e - box.left;
    this.y = matrix.f - box.top;
    this.layer.style.setProperty("--scale", this.scale);
    if (this.still) this.freeze(this.still.frame, this.still.places);
    else this.clear();
  }

  /** Let the messages of a frame fly, from now on. */
  start(frame, nowMs, places) {
    for (const message of frame.messages) {
      const flight = this.free(nowMs);
      if (!flight) return;
      const share = message.dropped ? LOST_AT : 1;
      const [from, to] = [this.place(places, message, 0), this.place(places, message, share)];
      if (!from || !to) continue;
      this.prepare(flight, message);
      const delay = FRAME_MS + Math.max(message.at_ms, -FRAME_MS);
      const duration = FLIGHT_MS * share;
      flight.animation = flight.shape.animate({ transform: [from, to], opacity: [1, message.dropped ? 0.3 : 1] }, { duration, delay });
      flight.endMs = nowMs + delay + duration;
    }
  }

  /** Show the messages of a frame where they are half way, and let nothing move. */
  freeze(frame, places) {
    this.clear();
    this.still = { frame, places };
    const counts = new Map();
    for (const message of frame.messages.slice(0, FLIGHTS_MAX)) {
      const flight = this.free(0);
      const lane = `${message.from}-${message.to}`;
      const before = counts.get(lane) ?? 0;
      counts.set(lane, before + 1);
      // Several of one link stand side by side.
      const transform = this.place(places, message, 0.5 + 0.11 * (before % 2 ? -1 : 1) * Math.ceil(before / 2));
      if (!transform) continue;
      this.prepare(flight, message);
      flight.endMs = Infinity;
      flight.shape.style.transform = transform;
      flight.shape.style.opacity = 1;
    }
  }

  /** Let all shapes vanish. */
  clear() {
    this.still = null;
    for (const flight of this.flights) {
      flight.animation?.cancel();
      flight.animation = null;
      if (flight.endMs === Infinity) flight.shape.style.opacity = 0;
      flight.endMs = 0;
    }
  }

  free(nowMs) {
    for (let tried = 0; tried < FLIGHTS_MAX; tried++) {
      const flight = this.flights[this.next];
      this.next = (this.next + 1) % FLIGHTS_MAX;
      if (flight.endMs <= nowMs) return flight;
    }
    return null;
  }

  prepare(flight, message) {
    const { shape, isReply } = KINDS[kindOf(message.kind)];
    const look = message.dropped ? "message lost" : `message shape-${shape}${isReply ? " reply" : ""}`;
    if (flight.look === look) return;
    flight.look = look;
    setAttribute(flight.path, "d", MESSAGE_SHAPES[message.dropped ? "lost" : shape]);
    setAttribute(flight.path, "class", look);
  }

  /** Return the transform that puts a shape on its link, a share of the way along; each direction has its own lane. */
  place(places, message, share) {
    const [from, to] = [places.get(message.from), places.get(message.to)];
    if (!from || !to) return null;
    const [dx, dy] = [to.x - from.x, to.y - from.y];
    const length = Math.hypot(dx, dy) || 1;
    const along = NODE_RADIUS + 8 + share * (length - 2 * NODE_RADIUS - 16);
    const x = this.x + this.scale * (from.x + (dx * along - dy * LANE) / length);
    const y = this.y + this.scale * (from.y + (dy * along + dx * LANE) / length);
    return `translate(${x.toFixed(1)}px, ${y.toFixed(1)}px)`;
  }
}

/** Whether messages move at all. */
export const isStill = () => stillness.matches;
