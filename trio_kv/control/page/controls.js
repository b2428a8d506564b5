// The controls: what can be done to a node, a link, or all; what it will do, in the server's words; and how to undo it.

import { byId, make, setAttribute, setShown, setText } from "./dom.js";
import { nodeName, roleOf } from "./words.js";

const DONE_MAX = 4;
const up = (node) => node.state === "up";
const isDown = (node) => ["crashed", "stopped", "damaged", "needs_rebuild"].includes(node.state);
const hasBadDisk = ({ disk }) => disk.is_full || disk.is_stalled || disk.delay_ms > 0;

// What can be done to one node, and when it makes sense.
const NODE_ACTIONS = [
  { group: "Node", command: "crash", title: "Crash", isFor: up },
  { group: "Node", command: "stop", title: "Stop", isFor: (node) => up(node) || node.state === "paused" },
  { group: "Node", command: "pause", title: "Pause", isFor: up },
  { group: "Node", command: "resume", title: "Resume", isFor: (node) => node.state === "paused", isUndo: true },
  { group: "Node", command: "restart", title: "Restart", isFor: (node) => node.state !== "paused" },
  { group: "Node", command: "rebuild", title: "Rebuild from the others", isFor: isDown },
  { group: "Raft", command: "transfer", title: "Make it the leader", isFor: (node) => up(node) && node.role !== "leader" },
  { group: "Raft", command: "snapshot", title: "Take a snapshot", isFor: up },
  { group: "Disk", command: "slow-disk", title: "Slow its disk", isFor: up, amount: { member: "ms", title: "ms a sync", value: 50, max: 60000 } },
  { group: "Disk", command: "stall-disk", title: "Stall its disk", isFor: (node) => up(node) && !node.disk.is_stalled },
  { group: "Disk", command: "fill-disk", title: "Fill its disk", isFor: (node) => up(node) && !node.disk.is_full },
  { group: "Disk", command: "fail-disk", title: "Fail its disk", isFor: up },
  { group: "Disk", command: "heal-disk", title: "Mend its disk", isFor: hasBadDisk, isUndo: true },
];

const ALL_ACTIONS = [
  { command: "partition", title: "Part the network…", opens: "sides" },
  { command: "cut", title: "Cut a link…", opens: "link" },
  { command: "delay", title: "Delay every message", amount: { member: "ms", title: "ms", value: 50, max: 60000 } },
  { command: "drop", title: "Lose messages", amount: { member: "percent", title: "%", value: 10, max: 100 } },
  { command: "heal", title: "Heal links and disks", isUndo: true },
];

export class Controls {
  /**
   * @param {object} on `send(command)` returns a promise; `open(dialog)` shows a dialog; `select(node)`; `say(text)`.
   */
  constructor(on) {
    this.on = on;
    this.box = byId("act");
    this.broken = byId("broken");
    this.said = byId("act-said");
    this.texts = new Map();
    this.undos = new Map();
    this.done = [];
    this.node = null;
    this.frame = null;
    this.buildAll();
  }

  /** Ask the server what its commands do. */
  async learn(send) {
    const { commands } = await send({ command: "describe" });
    for (const { command, what, undo } of commands) {
      this.texts.set(command, what);
      this.undos.set(command, undo);
    }
    for (const { action, what, more } of this.cards) {
      // The first sentence is always there, the rest when somebody is about to press.
      const [, first, rest] = /^(.*?\.(?= |$)|.*)(.*)$/s.exec((this.texts.get(action.command) ?? "").replaceAll("`", ""));
      setText(what, first);
      setText(more, rest.trim());
      more.classList.toggle("empty", !rest.trim());
    }
  }

  buildAll() {
    this.cards = [];
    this.picker = make("div", { class: "picker", role: "group", "aria-label": "Whose controls" });
    this.nodeBox = make("div", { class: "cards-of-node" });
    this.allBox = make("div", {}, this.buildGroup("Links", ALL_ACTIONS));
    this.mendAll = make("button", { type: "button", class: "good", onclick: () => this.mendEverything() }, "Make everything sound again");
    this.doneList = make("ul", { class: "done" });
    this.broken.append(make("div", { class: "row" }, this.mendAll), this.doneList);
    const groups = [...new Set(NODE_ACTIONS.map((action) => action.group))];
    for (const group of groups) this.nodeBox.append(this.buildGroup(group, NODE_ACTIONS.filter((action) => action.group === group)));
    this.box.append(this.picker, this.nodeBox, this.allBox);
    this.pickers = new Map();
  }

  buildGroup(title, actions) {
    const cards = actions.map((action) => this.buildCard(action));
    return make("div", { class: "group", role: "group", "aria-label": title }, make("h3", {}, title), make("div", { class: "cards" }, ...cards));
  }

  buildCard(action) {
    const id = `what-${action.command}`;
    const [what, more] = [make("span"), make("span", { class: "more empty" })];
    const button = make("button", { type: "button", "data-command": action.command, "aria-describedby": id, class: action.isUndo ? "good" : "", onclick: () => this.press(action) }, action.title);
    const parts = [button];
    if (action.amount) {
      action.input = make("input", { type: "number", min: 0, max: action.amount.max, value: action.amount.value, "aria-label": `${action.title}: ${action.amount.title}` });
      parts.push(make("span", { class: "amount" }, action.input, ` ${action.amount.title}`));
    }
    const card = make("div", { class: "card" }, make("div", { class: "card-head" }, ...parts), make("p", { class: "what", id }, what, " ", more));
    this.cards.push({ action, card, what, more });
    return card;
  }

  /** Show the controls of one node. */
  select(node) {
    this.node = node;
    if (this.frame) this.render(this.frame);
  }

  /** Draw what can be done to the cluster as it is now, whatever moment is looked at. */
  render(frame) {
    this.frame = frame;
    const seen = JSON.stringify([this.node, frame.faults, frame.links.length, frame.nodes.map((node) => [node.state, node.role, node.disk])]);
    if (seen === this.seen) return;
    this.seen = seen;
    const numbers = frame.nodes.map((each) => each.node);
    if (this.pickers.size !== numbers.length) this.buildPicker(numbers);
    if (!numbers.includes(this.node)) this.node = numbers[0];
    const node = frame.nodes.find((each) => each.node === this.node);
    for (const [number, button] of this.pickers) {
      setAttribute(button, "aria-pressed", String(number === this.node));
      setText(button, `${nodeName(number)} ${roleOf(frame.nodes.find((each) => each.node === number))}`);
    }
    for (const { action, card } of this.cards) if (action.isFor) setShown(card, action.isFor(node));
    for (const group of this.nodeBox.children) setShown(group, group.querySelector(".card:not([hidden])") !== null);
    setAttribute(this.mendAll, "disabled", !needsMending(frame));
  }

  buildPicker(numbers) {
    this.pickers = new Map(numbers.map((number) => [number, make("button", { type: "button", class: "pick", onclick: () => this.on.select(number) })]));
    this.picker.replaceChildren(...this.pickers.values());
  }

  press(action) {
    if (action.opens) return this.on.open(action.opens);
    const command = { command: action.command };
    if (action.isFor) command.node = this.node;
    if (action.amount) command[action.amount.member] = Number(action.input.value);
    return this.do(command, `${action.title}${action.isFor ? `: ${nodeName(this.node)}` : ""}`);
  }

  /** Carry a command out and offer to undo it. Returns whether it was done. */
  async do(command, title) {
    try {
      await this.on.send(command);
    } catch (error) {
      this.tell(`${title}: not done. ${error.message}`);
      return false;
    }
    this.tell(`${title}: done.`);
    this.note(title, this.undoOf(command));
    return true;
  }

  undoOf(command) {
    const undo = this.undos.get(command.command);
    if (!undo) return null;
    const copied = Object.fromEntries((undo.with ?? []).filter((name) => name in command).map((name) => [name, command[name]]));
    return { command: undo.command, ...copied, ...undo.members };
  }

  note(title, undo) {
    const item = make("li", {}, make("span", {}, title));
    if (undo) {
      item.append(make("button", {
        type: "button", class: "good", "aria-label": `Undo ${title}`,
        onclick: () => this.on.send(undo).then(() => { item.remove(); this.tell(`Undone: ${title}.`); }, (error) => this.tell(error.message)),
      }, `Undo (${undo.command})`));
    } else item.append(make("span", { class: "hint" }, "nothing to undo"));
    this.doneList.prepend(item);
    while (this.doneList.children.length > DONE_MAX) this.doneList.lastChild.remove();
  }

  tell(text) {
    setText(this.said, text);
  }

  /** Heal links and disks, let paused nodes go on, start those that are down. */
  async mendEverything() {
    const commands = [{ command: "heal" }, { command: "delay", ms: 0 }, { command: "drop", percent: 0 }];
    for (const { node, state } of this.frame.nodes) {
      if (state === "paused") commands.push({ command: "resume", node });
      if (state === "stopped" || state === "crashed") commands.push({ command: "restart", node });
    }
    const failed = (await Promise.allSettled(commands.map((command) => this.on.send(command)))).filter((each) => each.status === "rejected");
    this.doneList.replaceChildren();
    this.tell(failed.length ? failed.map((each) => each.reason.message).join("; ") : "Everything is being made sound again.");
  }
}

function needsMending(frame) {
  return frame.links.length > 0 || frame.faults.length > 0 || frame.nodes.some((node) => ["paused", "stopped", "crashed"].includes(node.state));
}
