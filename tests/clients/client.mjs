// A client of the wire protocol: node client.mjs HOST PORT uses each operation once, and prints what comes back.
import { connect } from "node:net";
import { createInterface } from "node:readline";
const [host, port] = process.argv.slice(2);
let socket, lines;
const open = () => { socket = connect(port, host); lines = createInterface(socket)[Symbol.asyncIterator](); };
const send = (request) => socket.write(JSON.stringify(request) + "\n");
const receive = async () => { const { value } = await lines.next(); console.log(value); return JSON.parse(value); };
const ask = (request) => { send(request); return receive(); };

open();
await ask({ op: "ping" });
const { session } = await ask({ op: "session" });
await ask({ op: "session", session });
await ask({ key: "snack", value: "chips", session, seq: 1 });
await ask({ key: "snack" });
await ask({ op: "cas", key: "snack", expected: "chips", value: "nuts" });
const incr = { op: "incr", key: "visits", by: 2, session, seq: 2 };
await new Promise((sent) => socket.end(JSON.stringify(incr) + "\n", sent));
open(); // The answer is lost: the same request under the same seq has it.
await ask(incr);
await ask({ key: "crumbs", value: 1, ttl: 3600 });
await ask({ op: "scan", prefix: "s", limit: 10 });
await ask({ op: "txn", if: [{ key: "snack", equals: "nuts" }], then: [{ op: "incr", key: "visits", by: 1 }, { op: "get", key: "visits" }], session, seq: 3 });
await ask({ op: "watch", prefix: "sn", id: "w" });
await ask({ op: "delete", key: "snack" });
await receive(); // The reply and the event, in either order.
await ask({ op: "unwatch", id: "w" });
await ask({ op: "status" });
socket.end();
