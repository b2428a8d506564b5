// The ring of nodes: what each is, who is linked with whom, and the messages between them.

import { makeSvg, setAttribute, setText, stillness } from "./dom.js";
import { Flights, isStill } from "./flights.js";
import { CENTRE, groupsOf, NODE_RADIUS, pairKey, placesOf } from "./layout.js";
import { CROWN, ROLE_SHAPES } from "./shapes.js";
import { nodeName, roleOf } from "./words.js";

export const TERM_COLOURS = 6;
const ARC_RADIUS = NODE_RADIUS + 13;
const GLIDE_MS = 160;

export const termClass = (term) => `term-${term % TERM_COLOURS}`;

export class Ring {
  /**
   * @param {SVGElement} svg where to draw.
   * @param {HTMLElement} layer lies over it, for the messages.
   * @param {(node: number) => void} onSelect called when a node is clicked, or chosen by a key.
   */
  constructor(svg, layer, onSelect) {
    this.svg = svg;
    this.onSelect = onSelect;
    this.nodes = new Map();
    this.links = new Map();
    this.places = new Map();
    this.homes = new Map();
    this.held = null;
    this.selected = null;
    this.lastMs = 0;
    this.layers = Object.fromEntries(["links", "centre", "nodes"].map((name) => {
      const layer = makeSvg("g", { class: name });
      svg.append(layer);
      return [name, layer];
    }));
    this.centre = [makeSvg("text", { class: "centre-term", x: CENTRE.x, y: CENTRE.y - 2 }), makeSvg("text", { class: "centre-note", x: CENTRE.x, y: CENTRE.y + 20 })];
    this.layers.centre.append(...this.centre);
    this.flights = new Flights(layer, svg);
  }

  /** Draw a frame. Messages fly if `isLive`, and stand still otherwise. */
  render(frame, nowMs, { isLive, isNew }) {
    const numbers = frame.nodes.map((node) => node.node);
    if (numbers.join() !== [...this.nodes.keys()].join()) this.build(numbers);
    this.homes = placesOf(groupsOf(numbers, frame.links));
    if (!isLive || stillness.matches) this.glide(Infinity);
    for (const node of frame.nodes) this.renderNode(node, frame);
    this.renderLinks(frame);
    setText(this.centre[0], `term ${frame.term}`);
    setText(this.centre[1], frame.leader ? `${nodeName(frame.leader)} leads` : "no leader");
    if (!isLive || isStill()) {
      this.flights.freeze(frame, this.places);
      this.isFrozen = true;
    } else if (isNew || this.isFrozen) {
      if (this.isFrozen) this.flights.clear();
      this.isFrozen = false;
      this.flights.start(frame, nowMs, this.homes);
    }
  }

  /** Move nodes to where they belong; return whether any is still on its way. */
  move(nowMs) {
    const isGliding = this.glide(Math.min(1, (nowMs - this.lastMs) / GLIDE_MS));
    this.lastMs = nowMs;
    return isGliding;
  }

  glide(share) {
    let isMoving = false;
    for (const [node, home] of this.homes) {
      const place = this.held?.node === node ? this.held.place : home;
      const now = this.places.get(node);
      if (now && now.x === place.x && now.y === place.y) continue;
      isMoving = true;
      const isThere = !now || share >= 1 || this.held?.node === node || Math.hypot(place.x - now.x, place.y - now.y) < 0.7;
      const next = isThere ? { ...place } : { x: now.x + (place.x - now.x) * share, y: now.y + (place.y - now.y) * share };
      this.places.set(node, next);
      this.nodes.get(node)?.group.setAttribute("transform", `translate(${next.x.toFixed(1)} ${next.y.toFixed(1)})`);
    }
    if (isMoving) for (const link of this.links.values()) this.placeLink(link);
    return isMoving;
  }

  build(numbers) {
    this.layers.nodes.replaceChildren();
    this.layers.links.replaceChildren();
    this.nodes.clear();
    this.links.clear();
    this.places.clear();
    for (const one of numbers) {
      this.nodes.set(one, this.buildNode(one));
      setAttribute(this.nodes.get(one).group, "aria-pressed", String(one === this.selected));
      for (const other of numbers) if (one < other) this.links.set(pairKey(one, other), this.buildLink(one, other));
    }
  }

  buildNode(node) {
    const part = {
      glow: makeSvg("circle", { class: "selection", r: ARC_RADIUS + 7 }),
      track: makeSvg("circle", { class: "arc-track", r: ARC_RADIUS }),
      arc: makeSvg("circle", { class: "arc", r: ARC_RADIUS, pathLength: 100, transform: "rotate(-90)" }),
      body: makeSvg("path", { class: "body" }),
      crown: makeSvg("path", { class: "crown", d: CROWN, transform: `translate(0 ${-ARC_RADIUS - 11})` }),
      name: makeSvg("text", { class: "node-name", y: 8 }, nodeName(node)),
      sign: makeSvg("text", { class: "node-sign", y: 24 }),
      role: makeSvg("text", { class: "node-role", y: ARC_RADIUS + 23 }),
      note: makeSvg("text", { class: "node-note", y: ARC_RADIUS + 40 }),
    };
    const group = makeSvg("g", { class: "node", tabindex: 0, role: "button", "data-node": node, "aria-pressed": "false" }, ...Object.values(part).flatMap((each) => [each, " "]));
    part.sign.setAttribute("aria-hidden", "true");
    group.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" && event.key !== " ") return;
      event.preventDefault();
      event.stopPropagation();
      this.onSelect(node);
    });
    this.layers.nodes.append(group);
    return { node, group, ...part };
  }

  buildLink(one, other) {
    const line = makeSvg("line", { class: "link" });
    const halves = [makeSvg("path", { class: "half", visibility: "hidden" }), makeSvg("path", { class: "half", visibility: "hidden" })];
    const label = makeSvg("text", { class: "link-label" });
    this.layers.links.append(line, ...halves, label);
    return { one, other, line, halves, label };
  }

  renderNode(node, frame) {
    const parts = this.nodes.get(node.node);
    const isUp = node.state === "up";
    const role = isUp ? (node.role ?? "follower") : "down";
    const isShort = node.disk.is_full || node.disk.is_stalled || node.disk.is_failed || node.disk.will_fail || node.disk.delay_ms > 0;
    setAttribute(parts.group, "class", `node role-${role} state-${node.state} ${termClass(node.term)}`);
    setAttribute(parts.body, "d", ROLE_SHAPES[role === "down" && node.state === "paused" ? "follower" : role] ?? ROLE_SHAPES.follower);
    setAttribute(parts.crown, "visibility", isUp && node.role === "leader" ? "visible" : "hidden");
    const share = isUp && node.election_of_ms ? Math.max(0, Math.min(1, node.election_ms / node.election_of_ms)) : null;
    setAttribute(parts.track, "visibility", share === null ? "hidden" : "visible");
    setAttribute(parts.arc, "visibility", share === null ? "hidden" : "visible");
    if (share !== null) setAttribute(parts.arc, "stroke-dasharray", `${Math.round(100 * share)} 101`);
    setText(parts.sign, node.state === "paused" ? "❚❚" : isUp ? "" : "✕");
    setText(parts.role, roleOf(node));
    setText(parts.note, isShort ? diskNote(node.disk) : node.term === frame.term ? "" : `in term ${node.term}`);
  }

  renderLinks(frame) {
    const faults = new Map();
    for (const link of frame.links) {
      const key = pairKey(...link.link);
      if (!faults.has(key)) faults.set(key, []);
      faults.get(key).push(link);
    }
    const texts = new Set([...this.links.keys()].map((key) => linkText(faults.get(key) ?? [])));
    // What is so everywhere is said once, in the caption, and not on every line.
    const isSame = this.links.size > 1 && texts.size === 1;
    for (const [key, link] of this.links) {
      const ways = faults.get(key) ?? [];
      const cut = ways.filter((way) => way.is_cut);
      const isLossy = ways.some((way) => way.loss > 0);
      const isLate = ways.some((way) => way.delay_ms > 0);
      setAttribute(link.line, "class", `link${cut.length > 1 ? " cut" : ""}${isLossy ? " lossy" : ""}${isLate ? " late" : ""}`);
      link.halves.forEach((half, place) => {
        const from = place === 0 ? link.one : link.other;
        const isCut = cut.length === 1 && cut[0].link[0] === from;
        setAttribute(half, "visibility", isCut ? "visible" : "hidden");
      });
      setText(link.label, cut.length > 1 ? "✕" : isSame ? "" : linkText(ways));
      setAttribute(link.label, "class", `link-label${cut.length ? " cut" : ""}`);
    }
  }

  placeLink({ one, other, line, halves, label }) {
    const [from, to] = [this.places.get(one), this.places.get(other)];
    if (!from || !to) return;
    for (const [name, value] of Object.entries({ x1: from.x, y1: from.y, x2: to.x, y2: to.y })) line.setAttribute(name, value.toFixed(1));
    const at = (share) => [from.x + (to.x - from.x) * share, from.y + (to.y - from.y) * share];
    const angle = (Math.atan2(to.y - from.y, to.x - from.x) * 180) / Math.PI;
    halves.forEach((half, place) => {
      const [x, y] = at(place === 0 ? 0.66 : 0.34);
      half.setAttribute("d", "M-12 -7L0 0L-12 7M4 -9V9");
      half.setAttribute("transform", `translate(${x.toFixed(1)} ${y.toFixed(1)}) rotate(${(place === 0 ? angle : angle + 180).toFixed(1)})`);
    });
    const [x, y] = at(0.5);
    label.setAttribute("x", x.toFixed(1));
    label.setAttribute("y", (y + 5).toFixed(1));
  }

  /** Mark a node as the one whose controls are shown. */
  select(node) {
    this.selected = node;
    for (const parts of this.nodes.values()) setAttribute(parts.group, "aria-pressed", String(parts.node === node));
  }

  /** Let nodes light up, for example those that a request passes; none takes the light away. */
  light(nodes) {
    for (const parts of this.nodes.values()) parts.group.classList.toggle("lit", nodes.includes(parts.node));
  }

  /** Return a place of the drawing for one of the window. */
  toDrawing(x, y) {
    const point = new DOMPoint(x, y).matrixTransform(this.svg.getScreenCTM().inverse());
    return { x: point.x, y: point.y };
  }
}

function linkText(ways) {
  const delay = Math.max(0, ...ways.map((way) => way.delay_ms ?? 0));
  const loss = Math.max(0, ...ways.map((way) => way.loss ?? 0));
  return [delay ? `${Math.round(delay)} ms` : "", loss ? `${Math.round(100 * loss)} % lost` : ""].filter(Boolean).join(", ");
}

function diskNote(disk) {
  if (disk.is_failed || disk.will_fail) return "disk fails";
  if (disk.is_full) return "disk full";
  if (disk.is_stalled) return "disk stalled";
  return `disk +${Math.round(disk.delay_ms)} ms`;
}
