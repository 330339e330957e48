"use strict";

// Keeps the WebSockets of a page open. They live and die together: one token opens them all, and
// when one breaks all are opened again.

// When each attempt began, for whoever looks into a connection that will not stay.
window.wsAttempts = [];

class Live {
  static LEAST = 500; // ms before a retry
  static FIRST = 3000; // at most before the first; doubles with every failure
  static LONGEST = 30_000;
  static PATIENCE = 10_000; // for the server to answer

  #base;
  #listeners;
  #show;
  #sockets = new Map();
  #state = "";
  #failures = 0;
  #liveSince = 0;
  #timer = 0;
  #round = 0; // what an older round still hears about is over

  // `listeners`: path -> function called with what came, read as JSON.
  // `show(state, seconds)`: connecting, live, waiting (for so many seconds), login, forbidden.
  constructor(base, listeners, show) {
    this.#base = base;
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

  async #connect() {
    const round = this.#end();
    this.#set("connecting");
    window.wsAttempts.push(Date.now());
    let token;
    try {
      token = await this.#askToken();
    } catch {
      token = undefined; // the server cannot be had
    }
    if (round !== this.#round) {
      return;
    }
    if (!token) {
      token === null ? this.#set("login") : this.#retry();
      return;
    }
    this.#timer = setTimeout(() => this.restart(), Live.PATIENCE);
    for (const [path, hear] of this.#listeners) {
      this.#open(path, hear, token, round);
    }
  }

  // A fresh token, or null if nobody is logged in any more.
  async #askToken() {
    const response = await fetch("/token", { signal: AbortSignal.timeout(Live.PATIENCE) });
    if (response.status === 401) {
      return null;
    }
    if (!response.ok) {
      throw new Error(`/token: status ${response.status}`);
    }
    return (await response.json()).token;
  }

  #open(path, hear, token, round) {
    // The only header a page can choose: the token goes as a subprotocol, the server picks "bearer".
    const socket = new WebSocket(this.#base + path, ["bearer", token]);
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
    this.#liveSince = Date.now();
    this.#set("live");
  }

  async #lost(code, opened) {
    const lived = this.isLive ? Date.now() - this.#liveSince : 0;
    const round = this.#end();
    if (code === 4401 && lived > 1000) {
      this.#connect(); // only the token was too old
      return;
    }
    // To a page a refused upgrade looks like a dead server (1006). How its own address answers tells.
    const forbidden = code === 4403 || (!opened && (await this.#isForbidden()));
    if (round === this.#round) {
      forbidden ? this.#set("forbidden") : this.#retry();
    }
  }

  async #isForbidden() {
    try {
      const signal = AbortSignal.timeout(Live.PATIENCE);
      return (await fetch(location.pathname, { method: "HEAD", signal })).status === 403;
    } catch {
      return false;
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
