"use strict";

// Runs on every page of a logged-in user; the room parts only where there is a room.
const csrfToken = document.querySelector('meta[name="csrf-token"]').content;
const list = document.getElementById("messages");
const chat = list && `/ws/chat/${list.dataset.room}`;
let echo = null; // told when a line sent over the socket has come back

if (list) {
  list.querySelectorAll("time").forEach(showLocalTime);
  scrollToEnd();
  document.getElementById("compose").addEventListener("submit", send);
}
const listeners = { "/ws/notifications": showAnnouncement };
if (chat) {
  listeners[chat] = hear;
}
const live = new Live(listeners, showState);

async function send(event) {
  event.preventDefault();
  const form = event.target;
  const button = form.querySelector("button");
  button.disabled = true;
  try {
    const text = form.elements.text.value;
    await (live.isLive ? say(text) : postJson(form.action, { text }).then(appendMessage));
    form.reset();
    showProblem("");
  } catch (error) {
    showProblem(error.message);
  } finally {
    button.disabled = false;
    form.elements.text.focus();
  }
}

// Over the socket. Done when the line has come back: only then it is stored.
function say(text) {
  const sent = new Promise((resolve, reject) => {
    const timer = setTimeout(() => live.restart(), 10_000);
    echo = (problem) => {
      clearTimeout(timer);
      echo = null;
      problem ? reject(new Error(problem)) : resolve();
    };
  });
  live.send(chat, text);
  return sent;
}

function hear(message) {
  if (message.error) {
    echo?.(message.error);
    return;
  }
  appendMessage(message);
  if (message.from === list.dataset.user) {
    echo?.();
  }
}

function showState(state, seconds) {
  const status = document.getElementById("status");
  status.dataset.state = state;
  status.textContent = {
    connecting: "Connecting…",
    live: "Live",
    waiting: "Reconnecting in ",
    login: "Please ",
    forbidden: "Not allowed: you are no longer a member here.",
  }[state];
  if (state === "waiting") {
    // Hidden from screen readers, or they would count along.
    addElement(status, "span", `${seconds} s`).ariaHidden = "true";
  } else if (state === "login") {
    addElement(status, "a", "log in").href = "/login";
    status.append(".");
  } else if (state === "live") {
    catchUp();
  }
  if (state !== "live") {
    echo?.("The connection broke. See whether your line has arrived before you send it again.");
  }
}

// What was written while no socket was open, read out of the page as the server makes it now.
async function catchUp() {
  const banner = document.getElementById("banner");
  const before = banner.textContent;
  const response = await fetch(location.pathname).catch(() => null);
  if (!response?.ok || response.redirected) {
    return;
  }
  const page = new DOMParser().parseFromString(await response.text(), "text/html");
  const read = (element, selector) => element.querySelector(selector).textContent;
  if (!page.getElementById("banner").hidden && banner.textContent === before) {
    showAnnouncement({ from: read(page, "#banner-from"), text: read(page, "#banner-text") });
  }
  for (const item of page.querySelectorAll("#messages li")) {
    appendMessage({
      id: item.dataset.id,
      from: read(item, "strong"),
      at: item.querySelector("time").dateTime,
      text: read(item, ".text"),
    });
  }
}

function showAnnouncement(announcement) {
  document.getElementById("banner-from").textContent = announcement.from;
  document.getElementById("banner-text").textContent = announcement.text;
  document.getElementById("banner").hidden = false;
}

async function postJson(url, body) {
  const response = await fetch(url, {
    method: "POST",
    headers: { "Content-Type": "application/json", "X-CSRF-Token": csrfToken },
    body: JSON.stringify(body),
  });
  const answer = await response.json().catch(() => ({}));
  if (!response.ok) {
    throw new Error(answer.error || `The server answered with status ${response.status}.`);
  }
  return answer;
}

function appendMessage(message) {
  if (list.querySelector(`[data-id="${Number(message.id)}"]`)) {
    return; // already shown
  }
  const item = document.createElement("li");
  item.dataset.id = message.id;
  item.classList.toggle("own", message.from === list.dataset.user);
  const meta = addElement(item, "p", "", "meta");
  addElement(meta, "strong", message.from);
  meta.append(" ");
  const time = addElement(meta, "time", "");
  time.dateTime = message.at;
  showLocalTime(time);
  addElement(item, "p", message.text, "text");
  const isLater = (other) => Number(other.dataset.id) > Number(message.id);
  list.insertBefore(item, [...list.children].find(isLater) ?? null);
  scrollToEnd();
}

// textContent only: what people write is never read as HTML.
function addElement(parent, tag, text, className = "") {
  const element = document.createElement(tag);
  element.textContent = text;
  if (className) {
    element.className = className;
  }
  parent.append(element);
  return element;
}

function showLocalTime(element) {
  const at = new Date(element.dateTime);
  element.textContent = at.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
  element.title = at.toLocaleString();
}

function showProblem(text) {
  const problem = document.getElementById("problem");
  problem.textContent = text;
  problem.hidden = !text;
}

function scrollToEnd() {
  const box = document.getElementById("scroll");
  box.scrollTop = box.scrollHeight;
}
