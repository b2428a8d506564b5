// The small console: one SET or GET, its answer, and the way that it took through the cluster, hop by hop.

import { byId, make, setText } from "./dom.js";
import { Unknown } from "./connection.js";
import { nodeName } from "./words.js";

const HOP_MS_MAX = 450;
const WAY_MS_MAX = 9000;

export class Ask {
  /** @param {object} on `send(command)` returns a promise; `light(nodes)` lights nodes up in the ring. */
  constructor(on) {
    this.on = on;
    this.said = byId("ask-said");
    this.hops = byId("hops");
    this.timer = null;
    byId("ask").addEventListener("submit", (event) => {
      event.preventDefault();
      const action = event.submitter?.value ?? "SET";
      this.run(action, byId("ask-key").value, byId("ask-value").value);
    });
  }

  /** Send a request and show what came of it. Returns the reply, or null if there was none. */
  async run(action, key, value) {
    const request = action === "SET" ? { op: "set", key, value } : { op: "get", key };
    this.stop();
    setText(this.said, `${action} ${key}: on its way …`);
    let answer;
    try {
      answer = await this.on.send({ command: "request", request });
    } catch (error) {
      setText(this.said, error instanceof Unknown ? `Unknown: ${error.message}` : `Not done. ${error.message}`);
      return null;
    }
    const { reply, hops } = answer;
    setText(this.said, `${action} ${key}: ${describeReply(action, reply)}`);
    this.show(hops);
    return reply;
  }

  stop() {
    clearTimeout(this.timer);
    this.on.light([]);
    this.hops.replaceChildren();
  }

  /** Show hops one after the other, slowly enough to be followed. */
  show(hops) {
    const items = hops.map((hop) => make("li", {},
      make("span", { class: "hop-ms" }, `${hop.at_ms.toFixed(1)} ms`),
      make("span", { class: "hop-node" }, hop.node === null ? "door" : `${nodeName(hop.node)}${hop.to ? ` → ${nodeName(hop.to)}` : ""}`),
      make("span", {}, hop.what)));
    this.hops.replaceChildren(...items);
    const waitMs = Math.min(HOP_MS_MAX, WAY_MS_MAX / hops.length);
    const next = (place) => {
      items[place - 1]?.classList.remove("now");
      if (place >= items.length) return this.on.light([]);
      items[place].classList.add("now");
      this.hops.scrollTop = items[place].offsetTop - this.hops.offsetTop - this.hops.clientHeight / 2;
      this.on.light([hops[place].node, hops[place].to].filter(Boolean));
      this.timer = setTimeout(() => next(place + 1), waitMs);
    };
    next(0);
  }
}

function describeReply(action, reply) {
  if (reply.status !== "ok") {
    if (reply.error === "timeout" || reply.error === "session_expired") return `nobody knows whether it was done (${reply.error}). ${reply.message ?? ""}`;
    if (action === "GET" && (reply.error === undefined || reply.error === "not_found")) return "there is no such key";
    return `not done (${reply.error}). ${reply.message ?? ""}`;
  }
  return action === "SET" ? "done; a majority has it on disk" : `is ${JSON.stringify(reply.value)}`;
}
