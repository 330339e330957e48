// A page that answers the pings of its route, with the line that docs/handlers.md has for it, and
// one that does not. Prints how both fare, as JSON.
//
//   node app_ping.mjs FOLDER_WITH_WS URL TOKEN LINE

import { once } from "node:events";
import { createRequire } from "node:module";
import { join } from "node:path";

const [folder, url, token, line] = process.argv.slice(2);
const WebSocket = createRequire(join(folder, "package.json"))("ws");

async function open() {
  const socket = new WebSocket(url, ["bearer", token]);
  const page = { socket, came: [] };
  socket.addEventListener("message", ({ data }) => page.came.push(data));
  await once(socket, "open");
  return page;
}

const answers = await open();
new Function("socket", line)(answers.socket);
const silent = await open();
const [code] = await once(silent.socket, "close");
while (answers.came.filter((message) => message === "ping").length < 3) {
  await once(answers.socket, "message");
}
const isOpen = answers.socket.readyState === WebSocket.OPEN;
answers.socket.terminate();
console.log(JSON.stringify({ code, silent: silent.came, isOpen, answers: answers.came }));
