// Joins the parts of the page. It draws what the server tells, and decides nothing about the cluster.

import { forgetToken, readAddress, rememberToken } from "./address.js";
import { Ask } from "./ask.js";
import { Connection } from "./connection.js";
import { Controls } from "./controls.js";
import { byId, isTyping, setAttribute, setShown, setText } from "./dom.js";
import { Feed } from "./feed.js";
import { areKeysOn, buildHelp, buildLegend, buildTheme } from "./help.js";
import { groupsOf } from "./layout.js";
import { Ring } from "./ring.js";
import { Sides } from "./sides.js";
import { Speed } from "./speed.js";
import { Strip } from "./strip.js";
import { NodeTable } from "./table.js";
import { Tape } from "./tape.js";
import { Tour } from "./tour.js";
import { View } from "./view.js";
import { clockTime, counted, duration, listed, nodeName } from "./words.js";

const VOICE_MS = 1500;
const SLIP_MS = 6000;
const STATES = { connecting: "connecting", open: "connected", lost: "connection lost, trying again", refused: "not let in" };

let { token, moment } = readAddress();
const connection = new Connection({ state: onState, frame: onFrame });
const send = (command) => connection.send(command);
const tape = new Tape(send);
const view = new View(tape, { change: draw, say });
const ring = new Ring(byId("ring"), byId("flights"), select);
const table = new NodeTable(byId("nodes"), select);
const strip = new Strip({ canvas: byId("strip"), slider: byId("scrub"), when: byId("when") }, view);
const speed = new Speed({ box: byId("speed"), summary: byId("clients-summary"), list: byId("clients") }, tape);
const feed = new Feed({ list: byId("feed"), kind: byId("feed-kind"), find: byId("feed-find"), pause: byId("feed-pause"), note: byId("feed-note") }, view);
const ask = new Ask({ send, light: (nodes) => ring.light(nodes) });
const controls = new Controls({ send, select, say, open: (dialog) => (dialog === "sides" ? sides.openSides() : sides.openLink()) });
const sides = new Sides(ring, { do: (command, title) => controls.do(command, title), present: () => view.present, moved: draw });
const tour = new Tour({ send, ask: (...request) => ask.run(...request), present: () => view.present, goLive: () => view.goLive(), say });
const openHelp = buildHelp();

let isDrawing = false;
let isChanged = false;
let isNew = false;
let lastSaid = { leader: undefined, atMs: 0 };
let slipTimer = null;

buildLegend();
buildTheme(() => { strip.setTheme(); draw(); });
bindButtons();
addEventListener("keydown", onKey);
addEventListener("hashchange", () => {
  const address = readAddress();
  if (address.token && address.token !== token) connect(address.token);
  moment = address.moment;
  if (moment && tape.run !== null) showLinked();
});
if (token) connect(token);
else openGate("This tab has no token yet.");

function connect(newToken) {
  token = newToken;
  setShown(byId("gate"), false);
  connection.open(token);
}

function openGate(why) {
  setText(byId("gate-why"), why);
  setShown(byId("gate"), true);
  setShown(byId("app"), view.frame !== null);
  byId("gate-token").focus();
}

function onState(state, why) {
  setText(byId("connection"), STATES[state]);
  setAttribute(byId("connection"), "data-state", state);
  if (state === "refused") {
    forgetToken();
    openGate(`${why} It may have been started anew with another one.`);
  }
  if (state === "open") onOpen().catch((error) => say(error.message));
  if (state === "lost") say("The connection to the server is lost; the page tries again by itself.");
}

async function onOpen() {
  setShown(byId("gate"), false);
  setShown(byId("app"), true);
  await controls.learn(send);
  await tape.fetchPast();
  if (moment) showLinked();
  draw();
}

function showLinked() {
  const { run, frame } = moment;
  moment = null;
  if (run === tape.run) view.show(frame);
  else say("The moment of this link belongs to another run of the server, and is not kept any more.");
}

function onFrame(frame) {
  if (tape.run !== null && tape.run !== frame.run) {
    view.clear();
    say("The server was started anew.");
  }
  if (view.present === null) select(frame.leader ?? frame.nodes[0].node);
  tape.add(frame);
  feed.take(frame);
  tour.render(frame);
  announce(frame);
  isNew = true;
  view.take(frame);
}

/** Say by voice what matters most, and not more often than one can listen to. */
function announce(frame) {
  const now = performance.now();
  if (frame.leader === lastSaid.leader || now - lastSaid.atMs < VOICE_MS) return;
  if (lastSaid.leader !== undefined) setText(byId("voice"), frame.leader === null ? "No node leads." : `${nodeName(frame.leader)} leads term ${frame.term}.`);
  lastSaid = { leader: frame.leader, atMs: now };
}

/** Tell a person something, on a slip that goes by itself. */
function say(text) {
  const slip = byId("said");
  setText(slip, text);
  slip.classList.add("shown");
  clearTimeout(slipTimer);
  slipTimer = setTimeout(() => slip.classList.remove("shown"), SLIP_MS);
}

function select(node) {
  ring.select(node);
  controls.select(node);
}

/** Draw before the next picture of the screen, however often this is asked for. */
function draw() {
  isChanged = true;
  if (isDrawing) return;
  isDrawing = true;
  requestAnimationFrame(onPicture);
}

function onPicture(nowMs) {
  const frame = view.frame;
  if (isChanged && frame) {
    isChanged = false;
    ring.render(frame, nowMs, { isLive: view.isLive, isNew });
    table.render(frame);
    speed.render(frame, nowMs, view.isLive);
    feed.render(frame, view.isLive);
    if (view.present) controls.render(view.present);
    strip.render();
    renderWords(frame);
    isNew = false;
  }
  const isMoving = ring.move(nowMs);
  isDrawing = isMoving || (isChanged && frame !== null);
  if (isDrawing) requestAnimationFrame(onPicture);
}

function renderWords(frame) {
  const isLive = view.isLive;
  const up = frame.nodes.filter((node) => node.state === "up").length;
  const leads = frame.leader === null ? "no leader" : `${nodeName(frame.leader)} leads`;
  setText(byId("summary"), `${leads}, term ${frame.term}; ${up} of ${counted(frame.nodes.length, "node")} up`);
  setText(byId("caption"), captionOf(frame));
  setShown(byId("past"), !isLive);
  const behind = view.present ? view.present.mono - frame.mono : 0;
  setText(byId("past"), isLive ? "" : `Held at ${clockTime(frame.time)}, ${duration(behind)} ago. Only the view is frozen: the cluster goes on.`);
  setShown(byId("act-past"), !isLive);
  setAttribute(byId("live"), "aria-pressed", String(isLive));
  setText(byId("pause"), isLive ? "Pause view" : "Go on");
  document.body.classList.toggle("is-past", !isLive);
}

/** Say in a sentence what is to be seen. */
function captionOf(frame) {
  const those = (isIt) => frame.nodes.filter(isIt).map((node) => node.node);
  const standing = those((node) => node.state === "up" && node.role === "candidate");
  const asking = those((node) => node.state === "up" && node.role === "pre_candidate");
  const parts = [];
  if (frame.leader !== null) parts.push(`${nodeName(frame.leader)} leads: every write goes through it${frame.majority ? `, and counts once ${frame.majority} of ${frame.nodes.length} have it on disk` : ""}.`);
  else if (standing.length) parts.push(`No leader: ${listed(standing)} ${standing.length === 1 ? "asks" : "ask"} the others for their votes.`);
  else if (asking.length) parts.push(`No leader: ${listed(asking)} ${asking.length === 1 ? "asks" : "ask"} around whether the others would vote for ${asking.length === 1 ? "it" : "them"}.`);
  else parts.push("No leader: writes wait until one is elected.");
  const away = those((node) => node.state !== "up");
  if (away.length) parts.push(`${listed(away)} ${away.length === 1 ? "is" : "are"} down or paused.`);
  const groups = groupsOf(frame.nodes.map((node) => node.node), frame.links);
  if (groups.length > 1) parts.push(`No message passes between ${groups.map(listed).join(" | ")}.`);
  const late = Math.max(0, ...frame.links.map((link) => link.delay_ms ?? 0));
  const lost = Math.max(0, ...frame.links.map((link) => link.loss ?? 0));
  if (late) parts.push(`Messages are up to ${Math.round(late)} ms late.`);
  if (lost) parts.push(`Up to ${Math.round(100 * lost)} % of messages are lost.`);
  return parts.join(" ");
}

function bindButtons() {
  const toggle = () => (view.isLive ? view.hold() : view.goLive());
  const on = (id, run) => byId(id).addEventListener("click", run);
  on("pause", toggle);
  on("live", () => view.goLive());
  on("back", () => view.step(-1));
  on("forward", () => view.step(1));
  on("help-open", openHelp);
  on("tour-open", () => tour.open());
  on("copy", copyLink);
  byId("scrub").addEventListener("keydown", (event) => {
    if (event.key.startsWith("Arrow")) { event.preventDefault(); onArrow(event); event.stopPropagation(); }
  });
  byId("gate-form").addEventListener("submit", (event) => {
    event.preventDefault();
    connect(rememberToken(byId("gate-token").value));
    byId("gate-token").value = "";
  });
}

async function copyLink() {
  view.hold();
  try {
    await navigator.clipboard.writeText(location.href);
    say("The link to this moment is copied. It holds no token.");
    setText(byId("copy"), "Copied");
  } catch {
    setText(byId("copy"), "See address bar");
  }
  setTimeout(() => setText(byId("copy"), "Copy link"), 2000);
}

function onArrow(event) {
  const direction = event.key === "ArrowLeft" || event.key === "ArrowDown" ? -1 : 1;
  if (event.shiftKey) view.stepToMark(direction);
  else view.step(direction);
}

function onKey(event) {
  if (event.key === "Escape" && tour.isOpen && !document.querySelector("dialog[open]")) return tour.close();
  if (event.ctrlKey || event.altKey || event.metaKey || !areKeysOn() || isTyping(event.target) || document.querySelector("dialog[open]")) return;
  if (event.key === "ArrowLeft" || event.key === "ArrowRight") { event.preventDefault(); onArrow(event); }
  else if (event.key === "?") openHelp();
  else if (event.key === "l" || event.key === "L") view.goLive();
  else if (event.key === " " && !event.target.closest("button, summary, input, [role=button]")) { event.preventDefault(); byId("pause").click(); }
}
