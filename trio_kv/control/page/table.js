// The nodes once more, as a table: in words and numbers, and each log as a row of cells.

import { make, makeSvg, setAttribute, setText } from "./dom.js";
import { termClass } from "./ring.js";
import { nodeName, roleOf } from "./words.js";

const CELLS = 18;
const CELL = { width: 9, gap: 2, height: 13 };

export class NodeTable {
  /** @param {HTMLTableElement} table where to draw. @param {(node: number) => void} onSelect called with a node. */
  constructor(table, onSelect) {
    this.table = table;
    this.onSelect = onSelect;
    this.rows = new Map();
  }

  /** Draw a frame. */
  render(frame) {
    const numbers = frame.nodes.map((node) => node.node);
    if (numbers.join() !== [...this.rows.keys()].join()) this.build(numbers);
    const end = Math.max(CELLS, ...frame.nodes.map((node) => node.last));
    for (const node of frame.nodes) this.renderRow(this.rows.get(node.node), node, end - CELLS + 1);
    setText(this.range, `log, the last ${CELLS} entries`);
  }

  build(numbers) {
    this.range = make("th", { scope: "col", class: "log-head" }, "log");
    const head = make("tr", {}, ...["node", "is", "term"].map((name) => make("th", { scope: "col" }, name)), this.range);
    this.rows = new Map(numbers.map((node) => [node, this.buildRow(node)]));
    this.table.replaceChildren(
      make("caption", { class: "unseen" }, "What each node is, and how far its log is"),
      make("thead", {}, head),
      make("tbody", {}, ...[...this.rows.values()].map((row) => row.row)),
    );
  }

  buildRow(node) {
    const cells = Array.from({ length: CELLS }, (_, place) => makeSvg("rect", {
      x: place * (CELL.width + CELL.gap) + 1, y: 1, width: CELL.width - 1, height: CELL.height - 1, rx: 1.5, class: "cell missing",
    }));
    const applied = makeSvg("path", { class: "applied-mark", d: "M-4 19L0 15L4 19Z" });
    const log = makeSvg("svg", { class: "log", viewBox: `0 0 ${CELLS * (CELL.width + CELL.gap)} 20`, "aria-hidden": "true" }, ...cells, applied);
    const name = make("button", { type: "button", class: "node-button", onclick: () => this.onSelect(node) }, nodeName(node));
    const parts = Object.fromEntries(["is", "term"].map((key) => [key, make("td", { class: `is-${key}` })]));
    const chip = make("span", { class: "chip" });
    parts.term.append(chip);
    const heads = make("p", { class: "log-heads" });
    const row = make("tr", { "data-node": node }, make("th", { scope: "row" }, name), parts.is, parts.term, make("td", {}, log, heads));
    return { row, cells, appliedMark: applied, heads, chip, ...parts };
  }

  renderRow(row, node, begin) {
    setAttribute(row.row, "class", `state-${node.state} role-${node.role ?? "none"}`);
    setText(row.is, roleOf(node));
    setText(row.chip, String(node.term));
    setAttribute(row.chip, "class", `chip ${termClass(node.term)}`);
    const heads = [`last ${node.last}`, `commit ${node.commit}`, `applied ${node.applied}`];
    if (node.snapshot) heads.push(`snapshot ${node.snapshot}`);
    // A line may end between two of these, and within none.
    setText(row.heads, heads.map((head) => head.replace(" ", "\u00a0")).join(", "));
    row.cells.forEach((cell, place) => {
      const index = begin + place;
      const kind = index > node.last || index < 1 ? "missing" : index > node.commit ? "present" : index <= (node.snapshot ?? 0) && index < node.first ? "folded" : "committed";
      setAttribute(cell, "class", `cell ${kind}`);
    });
    const place = node.applied - begin;
    setAttribute(row.appliedMark, "visibility", place >= 0 && place < CELLS ? "visible" : "hidden");
    setAttribute(row.appliedMark, "transform", `translate(${place * (CELL.width + CELL.gap) + CELL.width / 2} 0)`);
  }
}
