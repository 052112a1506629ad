// ioredis, its older ones, or iovalkey, which came of it.
const name = (process.env.PACKAGE ?? "ioredis").replace(/@.*/, "");
const module = await import(name);
const Redis = module.Redis ?? module.default;

const [host, port] = process.argv.slice(2);
const connect = (options) => new Redis({ host, port: Number(port), ...options });
const ask = (who, ...words) => who.call("NEAP.ACQUIRE", "one", ...words);
const release = (who, lease, how) => who.call("NEAP.RELEASE", lease, how);

const a = connect();
const b = connect();
console.log("ping", await a.ping());
const first = await ask(a);
console.log("first", first[0]);
const second = await ask(b, "BLOCK", "50");
console.log("second", second[0], second[4]);

const waiter = ask(b, "BLOCK", "5000");
const waiting = async () => {
  const look = await a.call("NEAP.SNAPSHOT", "one");
  return Array.isArray(look) ? look[3] : look.waiting;
};
while (await waiting() !== 1);
console.log("release", await release(a, first[1], "OK"));
const third = await waiter;
console.log("third", third[0]);

const c = connect({ commandTimeout: 200 });
await ask(c, "BLOCK", "2000", "ID", "job-1").catch(() => console.log("time-out"));
await release(a, third[1], "OK");
const d = connect();
const fourth = await ask(d, "BLOCK", "2000", "ID", "job-1");
const fifth = await ask(d, "ID", "job-1");
console.log("fourth", fourth[0], fourth[1] === fifth[1] ? "same" : "another");
console.log("release", await release(a, fourth[1], "FAIL"));
console.log("release", await release(a, fourth[1], "FAIL"));

const ears = connect();
const heard = new Promise((resolve) => {
  ears.on("pmessage", (pattern, channel) => channel === "neap:frail:open" && resolve(channel));
});
await ears.psubscribe("neap:*");
await a.call("NEAP.REPORT", "frail", "FAIL");
console.log("heard", await heard);
process.exit(0);
