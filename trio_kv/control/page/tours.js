// The guided tours: real faults on the live cluster, with the idea behind them in our own words.
//
// A step has words, the section of the paper (Ongaro and Ousterhout, "In Search of an Understandable Consensus
// Algorithm", extended version) where the rule stands, and perhaps something to do and a sight to wait for. `look`
// gets the newest frame and the events since the step began; it is true once what the step tells of can be seen.

import { listed, nodeName } from "./words.js";

const find = (events, name, isRight = () => true) => events.find((event) => event.event === name && isRight(event));
const nodeOf = (frame, number) => frame.nodes.find((node) => node.node === number);
const others = (frame, numbers) => frame.nodes.map((node) => node.node).filter((node) => !numbers.includes(node));

const ELECTION = {
  title: "Your first election",
  least: 3,
  steps: [
    {
      title: "One leads, the others listen",
      text: () => "The node with the crown leads. It sends heartbeats, the small dots, to say that it is alive. Each of the others has an arc around it: the time that is left until it loses patience. Every heartbeat fills the arc again.",
      section: "§5.2",
    },
    {
      title: "The leader dies",
      text: (memory) => `We stop ${nodeName(memory.leader)}, as if its power failed. No more heartbeats: watch the arcs run down. They have different lengths, drawn by lot, so that most often one node is alone in being first.`,
      section: "§5.2",
      start: (memory, frame) => { memory.leader = frame.leader; },
      act: (memory) => [{ command: "stop", node: memory.leader }],
      button: "Stop the leader",
      look: (memory, frame) => nodeOf(frame, memory.leader)?.state === "stopped",
    },
    {
      title: "An election",
      text: () => "The first whose arc is empty becomes a candidate, the diamond. It begins a new term, a number that only grows, votes for itself and asks the others, by triangles. Each node votes once in a term, for a log at least as complete as its own. A majority of votes makes a leader: two majorities share a node, so a term has one leader at most.",
      section: "§5.2 and §5.4.1",
      look: (memory, frame, events) => {
        const elected = find(events, "leader.elected", (event) => event.node !== memory.leader);
        memory.elected = elected ?? memory.elected;
        return Boolean(memory.elected) || (frame.leader !== null && frame.leader !== memory.leader);
      },
    },
    {
      title: "A new leader",
      text: (memory) => `${memory.elected ? `${nodeName(memory.elected.node)} leads term ${memory.elected.term}, by the votes of ${listed(memory.elected.votes)}.` : "Another node leads, in a new term."} The colour of a node is its term, and the tape below has a new band. Nothing that was acknowledged is lost: whoever wins has it all.`,
      section: "§5.4",
    },
    {
      title: "The old leader comes back",
      text: (memory) => `We start ${nodeName(memory.leader)} again. It remembers its old term, hears of the newer one in the first message, and follows. What it missed is sent to it.`,
      section: "§5.1 and §5.3",
      act: (memory) => [{ command: "restart", node: memory.leader }],
      button: "Start it again",
      look: (memory, frame) => nodeOf(frame, memory.leader)?.role === "follower" && nodeOf(frame, memory.leader).term >= frame.term,
    },
  ],
  undo: (memory) => (memory.leader ? [{ command: "restart", node: memory.leader }] : []),
  isUndone: (memory, frame) => !memory.leader || nodeOf(frame, memory.leader)?.state === "up",
};

const PARTITION = {
  title: "A partition",
  least: 3,
  steps: [
    {
      title: "The network breaks in two",
      text: (memory) => `We cut ${listed(memory.small)} off from ${listed(memory.large)}. All nodes run; they only don't hear each other. The leader, ${nodeName(memory.leader)}, is on the small side.`,
      section: "§5.2",
      start: (memory, frame) => {
        memory.leader = frame.leader;
        const rest = others(frame, [frame.leader]);
        memory.small = [frame.leader, ...(frame.nodes.length >= 5 ? rest.slice(0, 1) : [])].sort((a, b) => a - b);
        memory.large = others(frame, memory.small);
        memory.term = frame.term;
      },
      act: (memory) => [{ command: "partition", groups: [memory.small, memory.large] }],
      button: "Part the network",
      look: (memory, frame) => frame.links.some((link) => link.is_cut),
    },
    {
      title: "Each side on its own",
      text: (memory) => `The large side hears no heartbeat and elects a leader of a newer term. ${nodeName(memory.leader)} may look like a leader for a moment, but it can't reach a majority any more: it agrees on nothing, and soon steps down. It does not even raise its term, because it first asks whether anybody would vote for it.`,
      section: "§5.2; the first question is §9.6 of Ongaro's thesis",
      look: (memory, frame) => frame.term > memory.term && frame.leader !== null && memory.large.includes(frame.leader),
    },
    {
      title: "A write goes on",
      text: (memory) => `We write to the store. The large side agrees: ${listed(memory.large)} get a new entry, and it is committed there. ${listed(memory.small)} ${memory.small.length === 1 ? "misses" : "miss"} it: look at the dashed cells in the table.`,
      section: "§5.3",
      ask: () => ["SET", "tour", "written during a partition"],
      button: "SET tour",
      look: (memory, frame) => {
        const ahead = Math.max(...memory.large.map((node) => nodeOf(frame, node).commit));
        return ahead > Math.max(...memory.small.map((node) => nodeOf(frame, node).commit));
      },
    },
    {
      title: "Healed",
      text: (memory) => `We heal the network. ${listed(memory.small)} ${memory.small.length === 1 ? "hears" : "hear"} of the newer term, ${memory.small.length === 1 ? "follows" : "follow"}, and ${memory.small.length === 1 ? "is" : "are"} sent what is missing. Had there been entries that no majority had, they would be overwritten now.`,
      section: "§5.3",
      act: () => [{ command: "heal" }],
      button: "Heal it",
      look: (memory, frame) => frame.links.length === 0 && new Set(frame.nodes.map((node) => node.commit)).size === 1,
    },
  ],
  undo: () => [{ command: "heal" }],
  isUndone: (memory, frame) => frame.links.length === 0,
};

const UNACKNOWLEDGED = {
  title: "A write that nobody acknowledged",
  least: 3,
  steps: [
    {
      title: "Everybody alone",
      text: () => "What is a write worth that was sent, and never answered? We cut all links, and send a write in the same moment. The leader puts it into its own log, and nobody else gets it.",
      section: "§5.3",
      start: (memory, frame) => { memory.leader = frame.leader; memory.commit = nodeOf(frame, frame.leader)?.commit ?? 0; },
      act: (memory, frame) => [{ command: "partition", groups: frame.nodes.map((node) => [node.node]) }],
      ask: () => ["SET", "tour", "perhaps"],
      isAskedAtOnce: true,
      button: "Cut all links, and write",
      look: (memory, frame) => frame.links.some((link) => link.is_cut),
    },
    {
      title: "In one log is not agreed on",
      text: (memory) => `If the write came in time, the log of ${nodeName(memory.leader)} has one entry that is only outlined: it is there, and it is not committed. Without a majority on disk nobody may say that it is done. So the client still waits. And it must not be told "failed" either: that is not known.`,
      section: "§5.3 and §5.4",
      look: (memory, frame) => frame.leader === null || nodeOf(frame, memory.leader).last > nodeOf(frame, memory.leader).commit,
    },
    {
      title: "What became of it?",
      text: () => "We heal the network. The next leader decides: if its log has the entry, that will be committed; if not, it is overwritten, as if it had never been. Whoever asked may ask again under the same number, and it takes effect once: this store does that by itself as long as the client waits.",
      section: "§5.4.2 and §8",
      act: () => [{ command: "heal" }],
      button: "Heal it",
      look: (memory, frame) => frame.links.length === 0 && frame.leader !== null && nodeOf(frame, frame.leader).commit > memory.commit,
    },
    {
      title: "Ask for it",
      text: () => "Read the key. Either answer is right, because no write was acknowledged. But from now on it is the same answer for everybody, for ever.",
      section: "§8",
      ask: () => ["GET", "tour"],
      button: "GET tour",
    },
  ],
  undo: () => [{ command: "heal" }],
  isUndone: (memory, frame) => frame.links.length === 0,
};

export const TOURS = [ELECTION, PARTITION, UNACKNOWLEDGED];
