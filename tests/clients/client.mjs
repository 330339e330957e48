// What a page or a service on Node's `ws` does with our server. Prints what it saw, as JSON.
//
//   node client.mjs FOLDER_WITH_WS URL TOKEN

import { once } from "node:events";
import { createRequire } from "node:module";
import { join } from "node:path";

const [folder, url, token] = process.argv.slice(2);
const WebSocket = createRequire(join(folder, "package.json"))("ws");

async function open(path, protocols) {
  const socket = new WebSocket(url + path, protocols);
  socket.on("error", () => {});
  await once(socket, "open");
  return socket;
}

async function echo(message) {
  const socket = await open("/echo", ["bearer", token]);
  socket.send(message);
  const [data, isBinary] = await once(socket, "message");
  socket.close();
  await once(socket, "close");
  return { same: Buffer.compare(data, Buffer.from(message)) === 0, isBinary };
}

async function staysConnected() {
  const socket = await open("/echo", ["bearer", token]);
  let closed = false;
  socket.on("close", () => (closed = true));
  await new Promise((resolve) => setTimeout(resolve, 300));
  const seen = { protocol: socket.protocol, extensions: socket.extensions, closed };
  socket.terminate();
  return seen;
}

async function withoutToken() {
  const socket = new WebSocket(url + "/echo");
  socket.on("error", () => {});
  const [, response] = await once(socket, "unexpected-response");
  let body = "";
  for await (const piece of response) body += piece;
  return { status: response.statusCode, body: JSON.parse(body) };
}

async function weClose() {
  const socket = await open("/echo", ["bearer", token]);
  socket.close(4001, "from node");
  const [code, reason] = await once(socket, "close");
  return { code, reason: reason.toString() };
}

async function theyClose() {
  const socket = await open("/closes", ["bearer", token]);
  const [code, reason] = await once(socket, "close");
  return { code, reason: reason.toString() };
}

async function ping() {
  const socket = new WebSocket(url + "/pings", ["bearer", token]);
  const pinged = once(socket, "ping"); // it may come with the 101
  const answered = once(socket, "message");
  await once(socket, "open");
  socket.ping("payload");
  const [pong] = await once(socket, "pong");
  await pinged;
  const [latency] = await answered;
  socket.close();
  await once(socket, "close");
  return { pong: pong.toString(), latency: Number(latency.toString()) };
}

const large = Buffer.alloc(300_000, Buffer.from([0, 1, 2, 253, 254, 255, 7]));
const seen = {
  text: await echo("héllo \u{1F600} " + "x".repeat(300_000)),
  binary: await echo(large),
  empty: await echo(""),
  staysConnected: await staysConnected(),
  withoutToken: await withoutToken(),
  weClose: await weClose(),
  theyClose: await theyClose(),
  ping: await ping(),
};
console.log(JSON.stringify(seen));
