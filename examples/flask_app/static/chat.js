"use strict";

// Runs on every page of a logged-in user; the room parts only where there is a room.
const csrfToken = document.querySelector('meta[name="csrf-token"]').content;
const list = document.getElementById("messages");

if (list) {
  list.querySelectorAll("time").forEach(showLocalTime);
  scrollToEnd();
  document.getElementById("compose").addEventListener("submit", send);
}

async function send(event) {
  event.preventDefault();
  const form = event.target;
  const button = form.querySelector("button");
  button.disabled = true;
  try {
    appendMessage(await postJson(form.action, { text: form.elements.text.value }));
    form.reset();
    showProblem("");
  } catch (error) {
    showProblem(error.message);
  } finally {
    button.disabled = false;
    form.elements.text.focus();
  }
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
  list.append(item);
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
