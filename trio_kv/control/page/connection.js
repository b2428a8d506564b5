// The way to the server: one WebSocket, the token first, then commands and frames. It comes back by itself.
//
// Replies are found by the id of their command, in whatever order they come. A command that was sent when the
// connection broke is rejected as unknown: whether it was carried out, nobody here can tell.

const WAIT_FIRST_MS = 400;
const WAIT_MAX_MS = 4000;

export class Unknown extends Error {}

export class Connection {
  /**
   * @param {object} on what to call: `state(name, why)` with connecting, open, lost or refused; `frame(frame)`.
   */
  constructor(on) {
    this.on = on;
    this.token = null;
    this.waiting = new Map();
    this.nextId = 1;
    this.waitMs = WAIT_FIRST_MS;
    this.socket = null;
    this.timer = null;
    addEventListener("online", () => this.socket === null && this.token && this.open(this.token));
  }

  /** Connect with a token, now, and again whenever the connection breaks. */
  open(token) {
    this.close();
    this.token = token;
    this.on.state("connecting");
    const socket = new WebSocket(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/ws`);
    this.socket = socket;
    this.isOpen = false;
    socket.onopen = () => {
      socket.send(JSON.stringify({ auth: token }));
      // The first command is answered if the token is right, and is what asks for the frames.
      this.send({ command: "frames" }, true).then(() => {
        this.isOpen = true;
        this.waitMs = WAIT_FIRST_MS;
        this.on.state("open");
      }, () => {});
    };
    socket.onmessage = (message) => this.receive(JSON.parse(message.data));
    socket.onclose = () => socket === this.socket && this.lose();
  }

  /** Forget the connection and do not come back. */
  close() {
    clearTimeout(this.timer);
    const socket = this.socket;
    this.socket = null;
    this.isOpen = false;
    if (socket) socket.close();
    this.rejectAll();
  }

  /** Send a command; return a promise of its reply, which rejects with the server's sentence if it was refused. */
  send(command, isFirst = false) {
    if (!this.socket || !(this.isOpen || isFirst)) return Promise.reject(new Error("There is no connection to the server just now."));
    const id = this.nextId++;
    this.socket.send(JSON.stringify({ id, ...command }));
    return new Promise((resolve, reject) => this.waiting.set(id, { resolve, reject }));
  }

  receive(message) {
    if (message.frame) return this.on.frame(message.frame);
    if (message.error === "unauthorized") {
      this.close();
      this.on.state("refused", "The server does not know this token.");
      return;
    }
    const waiter = this.waiting.get(message.id);
    if (!waiter) return;
    this.waiting.delete(message.id);
    if (message.status === "ok") waiter.resolve(message);
    else waiter.reject(message.error === "timeout" ? new Unknown(message.message) : new Error(message.message));
  }

  lose() {
    this.socket = null;
    this.isOpen = false;
    this.rejectAll();
    this.on.state("lost");
    this.timer = setTimeout(() => this.open(this.token), this.waitMs);
    this.waitMs = Math.min(2 * this.waitMs, WAIT_MAX_MS);
  }

  rejectAll() {
    const waiters = [...this.waiting.values()];
    this.waiting.clear();
    for (const { reject } of waiters) reject(new Unknown("The connection broke; whether it was done is not known."));
  }
}
