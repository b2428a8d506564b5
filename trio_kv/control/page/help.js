// Help, the legend of shapes, and the page's own settings: its theme, and whether single keys do something.

import { byId, make, makeSvg, setAttribute, setText } from "./dom.js";
import { CROWN, MESSAGE_SHAPES, ROLE_SHAPES } from "./shapes.js";
import { KINDS } from "./words.js";

const KEYS = [
  ["Space", "hold the view, or go on"], ["← →", "one step back or forward"], ["Shift + ← →", "to the last or next election, crash or fault"],
  ["L", "back to the present"], ["?", "this help"], ["Esc", "close what is open"], ["Tab, Enter", "go to a node and choose it"],
];
const ROLE_NOTES = {
  leader: "leader: the only one that takes writes; it has a crown",
  follower: "follower; the arc is the time until it loses patience",
  pre_candidate: "asks around whether it would win an election",
  candidate: "candidate: stands for election",
  down: "down, or paused",
};
const THEMES = ["auto", "light", "dark"];
const stored = (key) => localStorage.getItem(`trio_kv.${key}`);
const store = (key, value) => localStorage.setItem(`trio_kv.${key}`, value);

/** Whether single keys do something. */
export const areKeysOn = () => stored("keys") !== "off";

/** Fill the help, and return a function that shows it. */
export function buildHelp() {
  const dialog = byId("help");
  const keys = make("input", { type: "checkbox", id: "keys", onchange: () => store("keys", keys.checked ? "on" : "off") });
  keys.checked = areKeysOn();
  dialog.append(
    make("h2", { id: "help-title" }, "Help"),
    make("p", {}, "You see a real cluster at work: each picture is what its nodes told about themselves a tenth of a second ago. Messages are a sample, slowed down so that one can follow them."),
    make("p", {}, "Click a node to choose whose controls are shown. Drag it away from the others to cut it off; drag it back to heal. “Part the network…” does the same without dragging."),
    make("p", {}, "Holding the view, or going back on the tape, freezes what you see. The cluster goes on. What you do with the controls always happens now."),
    make("h3", {}, "Keys"),
    make("dl", { class: "keys" }, ...KEYS.map(([key, text]) => make("div", {}, make("dt", {}, make("kbd", {}, key)), make("dd", {}, text)))),
    make("p", {}, keys, make("label", { for: "keys" }, " Single keys do something")),
    make("h3", {}, "The tape"),
    make("p", {}, "Ten minutes, a colour for each term, grey without a leader. ▲ a leader was elected, △ somebody stood for election, ✕ a node went down, ■ a fault was made, ○ it was healed."),
    make("form", { method: "dialog", class: "row" }, make("button", { type: "submit", class: "primary" }, "Close")),
  );
  return () => dialog.showModal();
}

/** Draw what the shapes mean. */
export function buildLegend() {
  const sample = (path, className, scale) => makeSvg("svg", { viewBox: "-14 -14 28 28", "aria-hidden": "true" }, makeSvg("path", { d: path, class: className, transform: `scale(${scale})` }));
  const item = (drawing, text) => make("li", {}, drawing, make("span", {}, text));
  const roles = Object.entries(ROLE_NOTES).map(([role, text]) => {
    const drawing = sample(ROLE_SHAPES[role], "body", 0.25);
    drawing.setAttribute("class", `role-${role} term-0`);
    if (role === "leader") drawing.append(makeSvg("path", { d: CROWN, class: "crown", transform: "translate(0 -1) scale(0.36)" }));
    return item(drawing, text);
  });
  const messages = Object.entries(KINDS).map(([, { shape, isReply, says }]) => item(sample(MESSAGE_SHAPES[shape], `message shape-${shape}${isReply ? " reply" : ""}`, 1.1), says));
  messages.push(item(sample(MESSAGE_SHAPES.lost, "message lost", 1.1), "lost on its way"));
  byId("legend-body").append(
    make("h3", {}, "Nodes"), make("ul", {}, ...roles),
    make("h3", {}, "Messages: filled asks, hollow answers"), make("ul", {}, ...messages),
  );
  // Where there is room for it, nobody has to ask.
  byId("legend").open = matchMedia("(min-width: 80rem) and (min-height: 66rem)").matches;
}

/** Let the theme button work; `onChange` is called when colours are others. */
export function buildTheme(onChange) {
  const button = byId("theme");
  const set = (theme) => {
    setAttribute(document.documentElement, "data-theme", theme === "auto" ? null : theme);
    setText(button, `Theme: ${theme}`);
    setAttribute(button, "aria-label", `Theme: ${theme === "auto" ? "auto, as the system" : theme}`);
    onChange();
  };
  let theme = THEMES.includes(stored("theme")) ? stored("theme") : "auto";
  button.addEventListener("click", () => {
    theme = THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length];
    store("theme", theme);
    set(theme);
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", onChange);
  set(theme);
}
