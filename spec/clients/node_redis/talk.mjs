import { setTimeout as sleep } from "node:timers/promises";
import { createClient } from "redis";

const [host, port] = process.argv.slice(2);
const connect = async () => {
  const client = createClient({ socket: { host, port: Number(port) } });
  await client.connect();
  return client;
};
const ask = (who, ...words) => who.sendCommand(["NEAP.ACQUIRE", "one", ...words]);
const release = (who, lease, how) => who.sendCommand(["NEAP.RELEASE", lease, how]);

// Requests of this client have no time of their own: who gives up just does not look any more.
const impatiently = (promise, ms) =>
  Promise.race([promise.catch(() => {}), sleep(ms).then(() => { throw new Error("time-out"); })]);

const a = await connect();
const b = await connect();
console.log("ping", await a.ping());
const first = await ask(a);
console.log("first", first[0]);
const second = await ask(b, "BLOCK", "50");
console.log("second", second[0], second[4]);

const waiter = ask(b, "BLOCK", "5000");
const waiting = async () => {
  const look = await a.sendCommand(["NEAP.SNAPSHOT", "one"]);
  return Array.isArray(look) ? look[3] : look.waiting;
};
while (await waiting() !== 1);
console.log("release", await release(a, first[1], "OK"));
const third = await waiter;
console.log("third", third[0]);

const c = await connect();
await impatiently(ask(c, "BLOCK", "2000", "ID", "job-1"), 200).catch((e) => console.log(e.message));
await release(a, third[1], "OK");
const d = await connect();
const fourth = await ask(d, "BLOCK", "2000", "ID", "job-1");
const fifth = await ask(d, "ID", "job-1");
console.log("fourth", fourth[0], fourth[1] === fifth[1] ? "same" : "another");
console.log("release", await release(a, fourth[1], "FAIL"));
console.log("release", await release(a, fourth[1], "FAIL"));

const ears = await connect();
const heard = new Promise((resolve) => {
  ears.pSubscribe("neap:*", (message, channel) => {
    if (channel === "neap:frail:open") resolve(channel);
  }).then(() => a.sendCommand(["NEAP.REPORT", "frail", "FAIL"]));
});
console.log("heard", await heard);
process.exit(0);
