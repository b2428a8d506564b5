// Requests: how many a second and how long they take, as numbers and as lines over the last minute; and who asks.

import { make, makeSvg, setAttribute, setText } from "./dom.js";
import { counted } from "./words.js";

const SPAN_S = 60;
const WIDTH = 160;
const HEIGHT = 34;
const POINTS_MAX = 120;
const PAUSE_MS = 450;
const CLIENTS_MAX = 20;

const SERIES = [
  { key: "writes_per_s", title: "writes", unit: "/s" },
  { key: "reads_per_s", title: "reads", unit: "/s" },
  { key: "write_p99_ms", title: "99 % of writes within", unit: " ms" },
  { key: "read_p99_ms", title: "99 % of reads within", unit: " ms" },
];

export class Speed {
  /** @param {object} parts elements: box, summary, list. @param {Tape} tape all moments. */
  constructor({ box, summary, list }, tape) {
    this.tape = tape;
    this.drawnMs = -Infinity;
    this.summary = summary;
    this.series = SERIES.map((each) => {
      const line = makeSvg("polyline", { class: "spark" });
      const value = make("strong", {}, "–");
      const most = make("span", { class: "spark-most" });
      const graph = makeSvg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", "aria-hidden": "true" }, line);
      box.append(make("div", { class: "spark-box" }, make("p", { class: "spark-title" }, each.title), make("p", {}, value, most), graph));
      return { ...each, line, value, most };
    });
    this.items = Array.from({ length: CLIENTS_MAX }, () => {
      const item = make("li", { hidden: true });
      list.append(item);
      return item;
    });
  }

  /** Draw a frame, and the minute before it; while time goes on, only so often that it can be read. */
  render(frame, nowMs, isLive) {
    if (isLive && nowMs - this.drawnMs < PAUSE_MS) return;
    this.drawnMs = isLive ? nowMs : -Infinity;
    const end = this.tape.placeOf(frame.number);
    for (const each of this.series) this.renderSeries(each, frame, end);
    const { connections, watches, list } = frame.clients;
    setText(this.summary, connections ? `${counted(connections, "client")} connected${watches ? `, ${counted(watches, "watch", "watches")}` : ""}` : "No client is connected");
    this.items.forEach((item, place) => {
      const client = list[place];
      item.hidden = !client;
      if (client) setText(item, `${client.name ? `${client.name}, ` : ""}${client.address}: ${counted(client.requests, "request")}`);
    });
  }

  renderSeries({ key, unit, line, value, most }, frame, end) {
    const number = frame.rates?.[key] ?? null;
    setText(value, number === null ? "–" : `${show(number)}${unit}`);
    const moments = this.tape.moments;
    const begin = frame.mono - SPAN_S;
    let start = end;
    while (start > 0 && moments[start - 1].mono >= begin) start -= 1;
    const stride = Math.max(1, Math.ceil((end - start) / POINTS_MAX));
    const points = [];
    let highest = 0;
    for (let place = end; place >= start; place -= stride) {
      const rate = moments[place]?.rates?.[key];
      if (rate === null || rate === undefined) continue;
      highest = Math.max(highest, rate);
      points.push([(WIDTH * (moments[place].mono - begin)) / SPAN_S, rate]);
    }
    const scale = (HEIGHT - 4) / (highest || 1);
    setAttribute(line, "points", points.map(([x, rate]) => `${x.toFixed(1)},${(HEIGHT - 2 - rate * scale).toFixed(1)}`).join(" "));
    setText(most, highest ? `most ${show(highest)}` : "");
  }
}

function show(number) {
  if (number >= 100) return Math.round(number).toLocaleString("en");
  return number >= 10 || number === 0 ? number.toFixed(0) : number.toFixed(1);
}
