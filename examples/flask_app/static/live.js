"use strict";

// Keeps the WebSockets of a page open. They live and die together: when one breaks all are opened
// again. The session's cookie says who it is, as with any request to this server.

// When each attempt began, for whoever looks into a connection that will not stay.
window.wsAttempts = [];

class Live {
  static LEAST = 500; // ms before a retry
  static FIRST = 3000; // at most, before the first; doubles with every failure
  static LONGEST = 30_000;
  static PATIENCE = 10_000; // for the server to answer

  #listeners;
  #show;
  #sockets = new Map();
  #state = "";
  #failures = 0;
  #timer = 0;
  #round = 0; // what an older round still hears about is over

  // `listeners`: path -> function called with what came, read as JSON.
  // `show(state, seconds)`: connecting, live, waiting (for so many seconds), login, forbidden.
  constructor(listeners, show) {
    this.#listeners = Object.entries(listeners);
    this.#show = show;
    window.addEventListener("online", () => this.#state === "waiting" && this.#connect());
    this.#connect();
  }

  get isLive() {
    return this.#state === "live";
  }

  send(path, text) {
    this.#sockets.get(path).send(text);
  }

  // Let go of a connection that no longer answers.
  restart() {
    this.#end();
    this.#retry();
  }

  #connect() {
    const round = this.#end();
    this.#set("connecting");
    window.wsAttempts.push(Date.now());
    this.#timer = setTimeout(() => this.restart(), Live.PATIENCE);
    for (const [path, hear] of this.#listeners) {
      this.#open(path, hear, round);
    }
  }

  #open(path, hear, round) {
    const socket = new WebSocket(location.origin.replace("http", "ws") + path);
    const isCurrent = () => round === this.#round;
    let opened = false;
    this.#sockets.set(path, socket);
    socket.addEventListener("open", () => {
      opened = true;
      if (isCurrent() && [...this.#sockets.values()].every((each) => each.readyState === 1)) {
        this.#opened();
      }
    });
    socket.addEventListener("message", (event) => isCurrent() && hear(JSON.parse(event.data)));
    socket.addEventListener("close", (event) => isCurrent() && this.#lost(event.code, opened));
  }

  #opened() {
    clearTimeout(this.#timer);
    this.#failures = 0;
    this.#set("live");
  }

  async #lost(code, opened) {
    const round = this.#end();
    if (code === 4403) {
      this.#set("forbidden");
      return;
    }
    let verdict = "";
    if (code === 4401 || !opened) {
      this.#set("connecting");
      if (code === 4401) {
        // Logged out. The new cookie is still on its way, and the old one would be believed.
        await new Promise((resolve) => setTimeout(resolve, Live.LEAST));
      }
      verdict = await this.#ask();
    }
    if (round === this.#round) {
      verdict ? this.#set(verdict) : this.#retry();
    }
  }

  // To a page a refused upgrade looks like a dead server (1006). How its own address answers tells.
  async #ask() {
    try {
      const signal = AbortSignal.timeout(Live.PATIENCE);
      const options = { method: "HEAD", cache: "no-store", signal };
      const answer = await fetch(location.pathname, options);
      if (answer.redirected) {
        return "login";
      }
      return answer.status === 403 ? "forbidden" : "";
    } catch {
      return ""; // the server cannot be had
    }
  }

  // All sockets closed, no timer left.
  #end() {
    clearTimeout(this.#timer);
    this.#round += 1;
    for (const socket of this.#sockets.values()) {
      socket.close();
    }
    this.#sockets.clear();
    return this.#round;
  }

  // Chance from the first retry on, or all pages come back in the same moment.
  #retry() {
    const most = Math.min(Live.LONGEST, Live.FIRST * 2 ** this.#failures);
    this.#failures += 1;
    this.#wait(Date.now() + Live.LEAST + Math.random() * (most - Live.LEAST));
  }

  #wait(until) {
    const left = until - Date.now();
    if (left <= 0) {
      this.#connect();
      return;
    }
    this.#set("waiting", Math.ceil(left / 1000));
    this.#timer = setTimeout(() => this.#wait(until), left % 1000 || 1000);
  }

  #set(state, seconds) {
    this.#state = state;
    this.#show(state, seconds);
  }
}
