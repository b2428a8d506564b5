// Parting the network: by dragging a node away from the others, or by choosing sides; and cutting one link.

import { byId, make, setShown, setText } from "./dom.js";
import { groupsAfterDrop, groupsOf } from "./layout.js";
import { listed, nodeName } from "./words.js";

const DRAG_FROM_PX = 6;
const SIDES = ["A", "B", "C"];

/** Return a sentence about which group can go on; nothing is counted here that the server did not count. */
function fate(groups, majority) {
  const shown = groups.map(listed).join(" | ");
  if (groups.length < 2) return `All nodes reach each other: ${shown}.`;
  if (!majority) return `No message passes between ${shown}.`;
  const able = groups.find((group) => group.length >= majority);
  const rest = groups.filter((group) => group !== able);
  const still = `${rest.map(listed).join(" | ")} ${rest.length === 1 && rest[0].length === 1 ? "gets" : "get"} no answer, and no write of theirs is agreed on.`;
  return able ? `${listed(able)} ${able.length === 1 ? "goes" : "go"} on. ${still}` : `No side has the ${majority} nodes that agree on a write: nothing is written anywhere until it is healed.`;
}

export class Sides {
  /** @param {Ring} ring the drawing. @param {object} on `do(command, title)`, `present()` returns the newest frame. */
  constructor(ring, on) {
    this.ring = ring;
    this.on = on;
    this.note = byId("drag-note");
    this.drag = null;
    ring.svg.addEventListener("pointerdown", (event) => this.begin(event));
    ring.svg.addEventListener("pointermove", (event) => this.move(event));
    ring.svg.addEventListener("pointerup", (event) => this.drop(event));
    ring.svg.addEventListener("pointercancel", () => this.end());
  }

  begin(event) {
    const group = event.target.closest("[data-node]");
    if (!group || event.button !== 0) return;
    this.drag = { node: Number(group.dataset.node), x: event.clientX, y: event.clientY, isMoving: false, groups: null };
    this.ring.svg.setPointerCapture(event.pointerId);
  }

  move(event) {
    const { drag } = this;
    if (!drag) return;
    if (!drag.isMoving && Math.hypot(event.clientX - drag.x, event.clientY - drag.y) < DRAG_FROM_PX) return;
    const frame = this.on.present();
    if (!frame) return this.end();
    drag.isMoving = true;
    const place = this.ring.toDrawing(event.clientX, event.clientY);
    this.ring.held = { node: drag.node, place };
    const numbers = frame.nodes.map((node) => node.node);
    drag.groups = groupsAfterDrop(groupsOf(numbers, frame.links), this.ring.homes, drag.node, place);
    setShown(this.note, true);
    setText(this.note, `Let go here: ${fate(drag.groups, frame.majority)}`);
    this.on.moved();
  }

  drop(event) {
    const { drag } = this;
    this.end();
    if (!drag) return;
    if (!drag.isMoving) return this.ring.onSelect(drag.node);
    event.preventDefault();
    this.part(drag.groups);
  }

  end() {
    this.drag = null;
    this.ring.held = null;
    setShown(this.note, false);
    this.on.moved();
  }

  /** Part the network into groups, or heal it if there is only one. */
  part(groups) {
    if (groups.length < 2) return this.on.do({ command: "heal" }, "Healed");
    return this.on.do({ command: "partition", groups }, `Parted ${groups.map(listed).join(" | ")}`);
  }

  /** Show the dialog in which sides are chosen. */
  openSides() {
    const frame = this.on.present();
    if (!frame) return;
    const dialog = byId("ask-sides");
    const numbers = frame.nodes.map((node) => node.node);
    const now = groupsOf(numbers, frame.links);
    const words = make("p", { class: "fate", role: "status" });
    const chosen = () => SIDES.map((side) => numbers.filter((node) => dialog.querySelector(`[name=side-${node}]:checked`).value === side)).filter((group) => group.length);
    const rows = numbers.map((node) => {
      const place = now.length > 1 ? Math.min(now.findIndex((group) => group.includes(node)), SIDES.length - 1) : node === frame.leader ? 0 : 1;
      const radios = SIDES.map((side, index) => make("label", {}, make("input", { type: "radio", name: `side-${node}`, value: side, checked: index === place }), ` side ${side}`));
      return make("fieldset", { class: "side-row" }, make("legend", {}, `${nodeName(node)}${node === frame.leader ? " (leads)" : ""}`), ...radios);
    });
    const form = make("form", { method: "dialog", onchange: () => setText(words, fate(chosen(), frame.majority)) },
      make("h2", { id: "sides-title" }, "Part the network"),
      make("p", {}, "Nodes of different sides hear nothing of each other until you heal it."),
      ...rows, words,
      make("div", { class: "row" },
        make("button", { type: "submit", class: "primary", onclick: () => this.part(chosen()) }, "Part it"),
        make("button", { type: "button", onclick: () => dialog.close() }, "Cancel")));
    dialog.replaceChildren(form);
    dialog.showModal();
    setText(words, fate(chosen(), frame.majority));
  }

  /** Show the dialog in which a link is chosen. */
  openLink() {
    const frame = this.on.present();
    if (!frame) return;
    const dialog = byId("ask-link");
    const options = () => frame.nodes.map(({ node }) => make("option", { value: node }, nodeName(node)));
    const [one, other] = [make("select", { id: "link-one" }, ...options()), make("select", { id: "link-other" }, ...options())];
    other.selectedIndex = Math.min(1, frame.nodes.length - 1);
    const link = () => [Number(one.value), Number(other.value)];
    const run = (command) => () => {
      const [from, to] = link();
      if (from !== to) this.on.do({ command, link: [from, to] }, `${command === "cut" ? "Cut" : "Healed"} ${nodeName(from)}–${nodeName(to)}`);
    };
    dialog.replaceChildren(make("form", { method: "dialog" },
      make("h2", { id: "link-title" }, "Cut a link"),
      make("p", {}, "No message passes between these two, in either direction. Both still hear the others."),
      make("p", { class: "row" }, make("label", { for: "link-one" }, "Between"), one, make("label", { for: "link-other" }, "and"), other),
      make("div", { class: "row" },
        make("button", { type: "submit", class: "primary", onclick: run("cut") }, "Cut it"),
        make("button", { type: "submit", class: "good", onclick: run("heal") }, "Heal it"),
        make("button", { type: "button", onclick: () => dialog.close() }, "Cancel"))));
    dialog.showModal();
  }
}
