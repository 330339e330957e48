// What a service in Node.js publishes to our sockets, written after docs/bus.md alone.
//
//   node publish.mjs FOLDER_WITH_REDIS WHAT REDIS_URL [SECRET or NAMES_AS_JSON]

import { createHmac } from "node:crypto";
import { createRequire } from "node:module";
import { join } from "node:path";

const [folder, what, url, extra] = process.argv.slice(2);
const { createClient } = createRequire(join(folder, "package.json"))("redis");

const LOBBY = "shop:room:/ws/chat/*:lobby";
const now = () => Date.now() / 1000;

const client = createClient({ url });
await client.connect();
const send = (channel, fields) => client.publish(channel, JSON.stringify({ v: 1, ...fields }));

// Letters, digits and these stay as they are: _ . - ~ / * @ + = , ; ! $ & ' ( )
const encode = (name) => encodeURI(name).replace(/[?:#]/g, encodeURIComponent);

async function signed(channel, fields, key = extra, signedFor = channel) {
  const text = JSON.stringify({ v: 1, at: now(), ...fields });
  const hmac = createHmac("sha256", key).update(`${signedFor}\n${text}`).digest("hex");
  await send(channel, { signed: text, hmac });
}

const series = {
  async kinds() {
    await send(LOBBY, { text: "grüße 👋" });
    await send(LOBBY, { json: { from: "node", list: [1, null, "é"] } });
    await send(LOBBY, { base64: Buffer.from([0, 1, 254, 255]).toString("base64") });
  },
  async addresses() {
    await send("shop:everyone:", { text: "everyone" });
    await send("shop:everyone:/ws/chat/*", { text: "everyone of the route" });
    await send("shop:everyone:/ws/other", { text: "not for you" });
    await send(LOBBY, { text: "room of the route" });
    await send("shop:room::lobby", { text: "room" });
    await send("shop:room::hall", { text: "not for you" });
    await send("shop:user:/ws/chat/*:ann", { text: "user of the route" });
    await send("shop:user::ann", { text: "user" });
    await send("shop:user::bob", { text: "not for you" });
    await send("other:room::lobby", { text: "not for you" });
  },
  async names() {
    for (const name of JSON.parse(extra)) {
      await send(`shop:room::${encode(name)}`, { text: name });
    }
  },
  async many() {
    for (let number = 0; number < 1000; number++) {
      await send(LOBBY, { text: String(number) });
    }
  },
  async close() {
    await send("shop:user::ann", { close: { code: 4401, reason: "logged_out" } });
  },
  async signed() {
    const wrong = "w" + extra.slice(1);
    await send(LOBBY, { text: "not signed" });
    await signed(LOBBY, { text: "another secret" }, wrong);
    await signed(LOBBY, { text: "of another channel" }, extra, "shop:room:/ws/chat/*:hall");
    await signed(LOBBY, { text: "too old", at: now() - 120 });
    await send(LOBBY, { text: "beside", signed: '{"v": 1, "text": "x"}', hmac: "" });
    await signed(LOBBY, { text: "taken" });
    await signed(LOBBY, { json: { taken: "too" } });
    await signed("shop:user::ann", { close: { code: 4401, reason: "logged_out" } });
  },
};

await series[what]();
await client.quit();
