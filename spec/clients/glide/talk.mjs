import { GlideClient, Logger } from "@valkey/valkey-glide";

Logger.setLoggerConfig("off");   // it writes to standard output

const [host, port] = process.argv.slice(2);
const connect = (options) =>
  GlideClient.createClient({ addresses: [{ host, port: Number(port) }], ...options });
const ask = (who, ...words) => who.customCommand(["NEAP.ACQUIRE", "one", ...words]);
const release = (who, lease, how) => who.customCommand(["NEAP.RELEASE", lease, how]);

const a = await connect({ requestTimeout: 10000 });
const b = await connect({ requestTimeout: 10000 });
console.log("ping", await a.customCommand(["PING"]));
const first = await ask(a);
console.log("first", first[0]);
const second = await ask(b, "BLOCK", "50");
console.log("second", second[0], second[4]);

const waiter = ask(b, "BLOCK", "5000");
const waiting = async () => {
  const look = await a.customCommand(["NEAP.SNAPSHOT", "one"]);
  const field = look.find((entry) => (entry.key ?? entry) === "waiting");
  return field.value ?? look[3];
};
while (await waiting() !== 1);
console.log("release", await release(a, first[1], "OK"));
const third = await waiter;
console.log("third", third[0]);

const c = await connect();   // gives up after 250 ms, and keeps its connection
await ask(c, "BLOCK", "2000", "ID", "job-1").catch(() => console.log("time-out"));
await release(a, third[1], "OK");
const fourth = await ask(c, "BLOCK", "2000", "ID", "job-1");
const fifth = await ask(b, "ID", "job-1");
console.log("fourth", fourth[0], fourth[1] === fifth[1] ? "same" : "another");
console.log("release", await release(a, fourth[1], "FAIL"));
console.log("release", await release(a, fourth[1], "FAIL"));

// A grant that meets nobody who looks: the client has given up, and its connection is there.
const held = async () => {
  const look = await a.customCommand(["NEAP.SNAPSHOT", "one"]);
  const at = look.findIndex((entry) => (entry.key ?? entry) === "leases");
  return look[at].value ?? look[at + 1];
};
const sixth = await ask(a);
await ask(c, "BLOCK", "800", "ID", "x", "TTL", "2000").catch(() => console.log("time-out"));
await release(a, sixth[1], "OK");
const orphan = await ask(c, "BLOCK", "800", "ID", "x", "TTL", "2000");
const again = await ask(b, "ID", "x", "TTL", "2000");
console.log("orphan", orphan[0], orphan[1] === again[1] ? "same" : "another", await held());
const since = Date.now();
while (await held() !== 0);
console.log("taken back", Date.now() - since < 4000);
process.exit(0);
