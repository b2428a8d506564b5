// What events, states and messages are called for people, and which of them are marks on the tape.

export const nodeName = (node) => `n${node}`;

/** Return names as a list that a person would say. */
export function listed(nodes) {
  const names = nodes.map(nodeName);
  if (names.length < 2) return names.join("");
  return `${names.slice(0, -1).join(", ")} and ${names[names.length - 1]}`;
}

/** Return a number of things: "1 entry", "12 entries". */
export function counted(count, one, many = `${one}s`) {
  return `${count.toLocaleString("en")} ${count === 1 ? one : many}`;
}

/** Return how long ago something was: "3 min 10 s". */
export function duration(seconds) {
  const whole = Math.max(0, seconds);
  if (whole < 10) return `${whole.toFixed(1)} s`;
  return whole < 60 ? `${Math.round(whole)} s` : `${Math.floor(whole / 60)} min ${Math.floor(whole % 60)} s`;
}

/** Return the time of day of a frame or an event, as it is where the reader is. */
export function clockTime(time) {
  const date = new Date(time);
  const pad = (number, size = 2) => String(number).padStart(size, "0");
  return `${pad(date.getHours())}:${pad(date.getMinutes())}:${pad(date.getSeconds())}.${Math.floor(date.getMilliseconds() / 100)}`;
}

export const ROLES = {
  leader: "leader", follower: "follower", candidate: "candidate", pre_candidate: "asks around",
};

export const STATES = {
  up: "runs", paused: "paused", crashed: "crashed", stopped: "stopped", damaged: "damaged", needs_rebuild: "needs a rebuild",
  starting: "starts",
};

/** Return what a node is at the moment, in a word or two. */
export function roleOf(node) {
  if (node.state !== "up") return STATES[node.state] ?? node.state;
  return ROLES[node.role] ?? node.role ?? "starts";
}

// Kinds of messages: a shape for what it is about, filled for a question and hollow for its answer.
export const KINDS = {
  append: { shape: "square", says: "new entries for the log (AppendEntries)" },
  "append-reply": { shape: "square", isReply: true, says: "the entries are on disk, or don't fit" },
  heartbeat: { shape: "dot", says: "heartbeat: the leader is alive" },
  "heartbeat-reply": { shape: "dot", isReply: true, says: "heartbeat heard" },
  vote: { shape: "triangle", says: "may I lead? (RequestVote)" },
  "vote-reply": { shape: "triangle", isReply: true, says: "a vote, or a refusal" },
  prevote: { shape: "wedge", says: "would I win? (pre-vote)" },
  "prevote-reply": { shape: "wedge", isReply: true, says: "you would, or would not" },
  read: { shape: "diamond", says: "up to which index may I read? (ReadIndex)" },
  "read-reply": { shape: "diamond", isReply: true, says: "up to this index" },
  snapshot: { shape: "hexagon", says: "a whole snapshot" },
  "snapshot-reply": { shape: "hexagon", isReply: true, says: "snapshot received" },
  "timeout-now": { shape: "bar", says: "stand for election now (TimeoutNow)" },
  other: { shape: "bar", says: "anything else" },
};

export const kindOf = (kind) => (KINDS[kind] ? kind : "other");

const name = (event) => (event.node ? nodeName(event.node) : "");
const groupsText = (groups) => groups.map(listed).join(" | ");

// One sentence for each event that people should see. What is not here shows its name and members.
const SENTENCES = {
  "election.started": (e) => `${name(e)} stands for election in term ${e.term} (${e.reason})`,
  "prevote.started": (e) => `${name(e)} asks whether it would win an election`,
  "vote.granted": (e) => `${name(e)} votes for ${nodeName(e.candidate)} in term ${e.term}`,
  "leader.lost": (e) => `${name(e)} hears nothing of ${nodeName(e.leader)} any more`,
  "leader.elected": (e) => `${name(e)} leads term ${e.term}, by the votes of ${listed(e.votes)}`,
  "leader.stepped_down": (e) => `${name(e)} leads no more: ${e.reason}`,
  "transfer.started": (e) => `${name(e)} hands over to ${nodeName(e.target)}: ${e.reason}`,
  "transfer.ended": (e) => `${name(e)} gives up handing over to ${nodeName(e.target)}: ${e.reason}`,
  "log.truncated": (e) => `${name(e)} drops entries ${e.first} to ${e.last}: the leader's log has others there`,
  "install.started": (e) => `${name(e)} begins to send its snapshot to ${nodeName(e.peer)}`,
  "snapshot.installed": (e) => `${name(e)} took over a snapshot up to entry ${e.index}`,
  "snapshot.taken": (e) => `${name(e)} took a snapshot up to entry ${e.index}`,
  "node.started": (e) => `${name(e)} runs; its log ends at entry ${e.log_last}`,
  "node.crashed": (e) => `${name(e)} crashed: ${e.reason}${e.restart_in_s === null || e.restart_in_s === undefined ? "" : `; it comes back in ${e.restart_in_s} s`}`,
  "node.stopped": (e) => `${name(e)} was stopped, and stays down`,
  "node.restarted": (e) => `${name(e)} is started again`,
  "node.paused": (e) => `${name(e)} is paused`,
  "node.resumed": (e) => `${name(e)} goes on after ${duration(e.paused_s)}`,
  "node.damaged": (e) => `${name(e)} is damaged: ${e.reason}. ${e.way_out}`,
  "node.rebuild_needed": (e) => `${name(e)} must be rebuilt: ${e.reason}`,
  "rebuild.started": (e) => `${name(e)} got an empty directory, and is filled by the others`,
  "rebuild.ended": (e) => `${name(e)} has all again, and votes`,
  "disk.failed": (e) => `the disk of ${name(e)} failed: ${e.reason}`,
  "disk.slowed": (e) => (e.delay_s ? `each sync of ${name(e)} takes ${Math.round(1000 * e.delay_s)} ms longer` : `the disk of ${name(e)} is as fast as before`),
  "disk.stalled": (e) => `the disk of ${name(e)} stands still`,
  "disk.hung": (e) => `the disk of ${name(e)} does not answer: ${e.reason}`,
  "disk.moved": (e) => `the disk of ${name(e)} answers again`,
  "disk.room_changed": (e) => (e.room_bytes === null ? `${name(e)} has room on its disk again` : `the disk of ${name(e)} is full`),
  "link.cut": (e) => `the link between ${listed(e.nodes)} is cut`,
  "link.partitioned": (e) => `the network is parted: ${groupsText(e.groups)}`,
  "link.healed": () => "all links are sound again",
  "link.faulted": (e) => (e.delay_s || e.drop_percent ? `every link: ${Math.round(1000 * e.delay_s)} ms late, ${e.drop_percent} % lost` : "every link is on time again"),
  "control.commanded": (e) => `somebody asked: ${e.command} ${e.detail}`,
  "server.started": (e) => `the store listens at ${e.host}:${e.port}`,
  "server.stopping": (e) => `the store stops: ${e.reason}`,
};

const COMMON = new Set(["time", "mono", "seq", "level", "event", "node", "term", "role"]);

/** Return an event as a sentence. */
export function sentence(event) {
  const make = SENTENCES[event.event];
  if (make) return make(event);
  const members = Object.entries(event).filter(([key]) => !COMMON.has(key)).map(([key, value]) => `${key} ${JSON.stringify(value)}`);
  return `${name(event)} ${event.event} ${members.join(", ")}`.trim();
}

// The feed's filters, by the first part of an event's name.
export const FAMILIES = {
  elections: ["election", "prevote", "vote", "leader", "transfer", "term"],
  nodes: ["node", "rebuild", "snapshot", "install", "log"],
  faults: ["link", "disk", "control"],
  clients: ["client", "access", "accept", "server"],
};

/** Return which family an event belongs to, or "others". */
export function familyOf(event) {
  const part = event.event.split(".", 1)[0];
  return Object.keys(FAMILIES).find((family) => FAMILIES[family].includes(part)) ?? "others";
}

const MARKS = {
  "election.started": "election", "leader.elected": "leader", "node.crashed": "crash", "node.stopped": "crash",
  "node.paused": "fault", "disk.failed": "crash", "node.damaged": "crash", "disk.slowed": "fault", "disk.stalled": "fault",
  "disk.room_changed": "fault", "link.cut": "fault", "link.partitioned": "fault", "link.faulted": "fault",
  "link.healed": "heal", "node.resumed": "heal", "node.restarted": "heal",
};

/** Return which mark on the tape an event is: election, leader, crash, fault, heal; or null. */
export const markOf = (eventName) => MARKS[eventName] ?? null;
