// The tape at the bottom: a band per term, marks for what happened, and the slider over it.

import { setAttribute, setText } from "./dom.js";
import { TERM_COLOURS } from "./ring.js";
import { TAPE_S } from "./tape.js";
import { clockTime, duration, nodeName } from "./words.js";

const HEIGHT = 40;
const BAND = { top: 20, height: 16 };
const TICKS_S = 0.1;
const LATER_S = 3;

export class Strip {
  /** @param {object} parts elements: canvas, slider, when. @param {View} view what is shown. */
  constructor(parts, view) {
    Object.assign(this, parts);
    this.view = view;
    this.tape = view.tape;
    this.drawn = -1;
    this.setTheme();
    this.slider.addEventListener("input", () => {
      const mono = Number(this.slider.value) * TICKS_S;
      const number = this.tape.numberAt(mono);
      if (number !== null) this.view.show(number);
    });
    new ResizeObserver(() => this.resize()).observe(this.canvas.parentElement);
  }

  /** Read the colours anew. */
  setTheme() {
    const style = getComputedStyle(document.documentElement);
    const probe = this.canvas;
    const resolve = (name) => {
      probe.style.color = `var(${name})`;
      return getComputedStyle(probe).color;
    };
    this.colours = {
      terms: Array.from({ length: TERM_COLOURS }, (_, term) => resolve(`--term-${term}`)),
      none: resolve("--line"), ink: resolve("--ink"), bad: resolve("--bad"), good: resolve("--good"), paper: resolve("--panel"),
    };
    this.font = `600 ${Math.min(15, 0.8 * parseFloat(style.fontSize))}px ${style.fontFamily}`;
    this.drawn = -1;
  }

  resize() {
    const ratio = devicePixelRatio || 1;
    this.width = this.canvas.parentElement.clientWidth;
    this.canvas.width = Math.round(this.width * ratio);
    this.canvas.height = Math.round(HEIGHT * ratio);
    this.ratio = ratio;
    this.drawn = -1;
    this.render();
  }

  /** Draw the tape as it is now. */
  render() {
    const { first, last } = this.tape;
    if (!first || !this.width) return;
    this.end = last.mono;
    // A young tape fills the strip from the left, so that its marks do not crowd at one end.
    this.begin = Math.max(first.mono, last.mono - TAPE_S);
    if (this.drawn !== this.tape.version) this.draw();
    this.drawn = this.tape.version;
    this.renderSlider();
  }

  renderSlider() {
    const frame = this.view.frame;
    if (!frame) return;
    setAttribute(this.slider, "min", Math.floor(this.begin / TICKS_S));
    setAttribute(this.slider, "max", Math.ceil(this.end / TICKS_S));
    const value = this.view.isLive ? this.slider.max : String(Math.round(frame.mono / TICKS_S));
    if (this.view.wanted === null && this.slider.value !== value) this.slider.value = value;
    const ago = this.end - frame.mono;
    const where = this.view.isLive ? "now" : `${duration(ago)} ago`;
    const text = `${clockTime(frame.time)} · ${where} · frame ${frame.number}`;
    setText(this.when, text);
    setAttribute(this.slider, "aria-valuetext", `${clockTime(frame.time)}, ${where}, term ${frame.term}${frame.leader ? `, ${nodeName(frame.leader)} leads` : ", no leader"}`);
  }

  draw() {
    const context = this.canvas.getContext("2d");
    const { colours, ratio, width } = this;
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, width, HEIGHT);
    const xOf = (mono) => ((mono - this.begin) / Math.max(this.end - this.begin, LATER_S)) * (width - 2) + 1;
    const moments = this.tape.moments;
    let from = 0;
    for (let place = 1; place <= moments.length; place++) {
      const [start, next] = [moments[from], moments[place]];
      if (next && next.term === start.term && (next.leader === null) === (start.leader === null)) continue;
      this.band(context, xOf(Math.max(start.mono, this.begin)), xOf(next ? next.mono : this.end), start);
      from = place;
    }
    for (const moment of moments) {
      if (moment.marks.length && moment.mono >= this.begin) for (const mark of moment.marks) this.mark(context, xOf(moment.mono), mark);
    }
    context.fillStyle = colours.ink;
  }

  band(context, left, right, { term, leader }) {
    const colour = this.colours.terms[term % TERM_COLOURS];
    context.fillStyle = leader === null ? this.colours.none : colour;
    context.fillRect(left, BAND.top, Math.max(1, right - left - 1), BAND.height);
    if (right - left < 60) return;
    context.font = this.font;
    context.fillStyle = leader === null ? this.colours.ink : this.colours.paper;
    context.fillText(`term ${term}`, left + 6, BAND.top + 12);
  }

  mark(context, x, mark) {
    const { colours } = this;
    context.beginPath();
    if (mark === "leader" || mark === "election") {
      context.fillStyle = context.strokeStyle = colours.ink;
      context.moveTo(x - 4, 16);
      context.lineTo(x + 4, 16);
      context.lineTo(x, 9);
      context.closePath();
      if (mark === "leader") context.fill();
      else context.stroke();
    } else if (mark === "heal") {
      context.strokeStyle = colours.good;
      context.lineWidth = 2;
      context.arc(x, 6, 3, 0, 7);
      context.stroke();
    } else {
      context.strokeStyle = context.fillStyle = colours.bad;
      context.lineWidth = 2;
      if (mark === "crash") {
        context.moveTo(x - 3.5, 2);
        context.lineTo(x + 3.5, 9);
        context.moveTo(x + 3.5, 2);
        context.lineTo(x - 3.5, 9);
        context.stroke();
      } else context.fillRect(x - 3, 2, 6, 6);
    }
    context.lineWidth = 1;
  }
}
