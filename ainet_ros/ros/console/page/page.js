// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: the authors of ainet_ros
// The operator's page. What goes over the socket is described in ../server.py.

const WINDOW_S = 60;
const GAP_S = 3; // a curve is not drawn across; a target without an answer for so long says so
const LEAST_BOX = 4; // pixels of the page: those of the picture are larger on a slow link
const KEY_STEP = 0.01; // of the picture's width and height
const VIEWS = ["overlay", "rgb", "thermal"]; // as the server counts them
const RETRY_MS = [500, 1000, 2000, 5000];
const BROKEN = "connection lost, trying again";

const find = (id) => document.getElementById(id);
const stage = find("stage");
const picture = find("picture");
const pen = picture.getContext("2d");

let socket = null;
let tries = 0;
let view = "overlay"; // that was asked for
let shown = null; // {image, stamp, of} of the picture on the stage; of: the view that it is
let latest = null; // the same of the newest picture, which waits while a box is dragged
let box = null; // [x, y, width, height] in fractions of the picture, while it is drawn
let drag = null; // {x, y, pointer} where the drag began, and of which finger
let rows = []; // tracks of the last WINDOW_S
let offset = 0; // this clock less the server's, in seconds
let targets = new Map(); // the last track of each, by its id
let resets = new Map(); // when each was dropped, by its id
let requests = new Map(); // what to do with the reply, by the request's number
let counter = 0;

// The socket

function connect() {
  const scheme = location.protocol === "https:" ? "wss:" : "ws:";
  socket = new WebSocket(`${scheme}//${location.host}/socket`);
  socket.binaryType = "arraybuffer";
  let opened = false;
  socket.onopen = () => {
    opened = true;
    tries = 0;
    rows = [];
    targets.clear();
    resets.clear();
    find("events").replaceChildren();
    status("connected");
    socket.send(JSON.stringify({ do: "view", view }));
  };
  socket.onmessage = ({ data }) => (typeof data === "string" ? take(JSON.parse(data)) : show(data));
  socket.onclose = () => {
    for (const settle of requests.values()) settle({ done: false, text: "connection lost" });
    requests.clear();
    if (opened) status(BROKEN, true);
    else sayWhyNot();
    setTimeout(connect, RETRY_MS[Math.min(tries++, RETRY_MS.length - 1)]);
  };
}

// A browser does not tell what was answered to a socket that did not open.
async function sayWhyNot() {
  let text = BROKEN;
  try {
    const answer = await fetch("/socket");
    const plain = answer.headers.get("Content-Type")?.startsWith("text/plain");
    // With 400 a socket would have opened.
    if (plain && answer.status !== 400) text = await answer.text();
  } catch {
    // nobody is there
  }
  if (tries) status(text, true); // else one has opened meanwhile
}

function ask(request) {
  return new Promise((settle) => {
    if (socket.readyState !== WebSocket.OPEN) {
      settle({ done: false, text: "not connected" });
      return;
    }
    requests.set(++counter, settle);
    socket.send(JSON.stringify({ ...request, number: counter }));
  });
}

async function command(request) {
  say("…");
  const reply = await ask(request);
  say(reply.text, !reply.done);
  return reply.done;
}

function take(news) {
  for (const reply of news.replies ?? []) {
    requests.get(reply.number)?.(reply);
    requests.delete(reply.number);
  }
  if (news.tracker !== undefined) {
    const text = news.tracker ? "connected" : "connected, but the tracker is not running";
    status(text, !news.tracker);
  }
  if (news.time) offset = Date.now() / 1000 - news.time;
  if (news.events) takeEvents(news.events);
  if (news.tracks) takeTracks(news.tracks);
  if (news.events || news.tracks) refresh();
  if (news.diagnostics) showDiagnostics(news.diagnostics);
  if (news.parameters) showParameters(news.parameters);
}

function status(text, bad = false) {
  const place = find("connection");
  if (place.textContent !== text) place.textContent = text; // it is read aloud
  place.dataset.state = bad ? "bad" : "good";
}

function say(text, bad = false) {
  find("said").textContent = text;
  find("said").dataset.state = bad ? "bad" : "good";
}

// The picture

async function show(data) {
  const head = new DataView(data);
  const stamp = head.getBigInt64(0).toString();
  const of = VIEWS[head.getUint8(8)];
  try {
    const image = await createImageBitmap(new Blob([data.slice(9)], { type: "image/jpeg" }));
    latest?.image !== shown?.image && latest?.image.close();
    latest = { image, stamp, of };
    if (!drag) draw();
  } finally {
    if (socket.readyState === WebSocket.OPEN) socket.send(JSON.stringify({ do: "seen" }));
  }
}

function draw() {
  if (latest && latest !== shown && !drag) {
    shown?.image.close();
    shown = latest;
    find("no-picture").hidden = true;
    stage.dataset.stamp = shown.stamp;
  }
  if (!shown) return;
  const { width, height } = shown.image;
  if (picture.width !== width || picture.height !== height) {
    picture.width = width;
    picture.height = height;
    stage.style.setProperty("--aspect", width / height);
  }
  pen.drawImage(shown.image, 0, 0);
  if (!box) return;
  const [x, y, w, h] = box;
  const line = Math.max(1, width / 320);
  for (const [color, thick] of [["#000", 3 * line], ["#ffd54f", line]]) {
    pen.strokeStyle = color;
    pen.lineWidth = thick;
    pen.strokeRect(x * width, y * height, w * width, h * height);
  }
}

function setBox(next) {
  box = next;
  draw();
}

function place(event) {
  const area = picture.getBoundingClientRect();
  const clamp = (value) => Math.min(Math.max(value, 0), 1);
  return {
    x: clamp((event.clientX - area.left) / area.width),
    y: clamp((event.clientY - area.top) / area.height),
  };
}

function start() {
  const { stamp, of } = shown; // of what the box was drawn on
  const { width, height } = picture.getBoundingClientRect();
  const chosen = box;
  setBox(null);
  if (!chosen || chosen[2] * width < LEAST_BOX || chosen[3] * height < LEAST_BOX) {
    say("the box is too small: drag from one corner of the target to the other", true);
  } else if (of === "thermal") {
    say("draw the box on the overlay or the RGB picture", true);
  } else {
    command({ do: "init", box: chosen, stamp, add: find("add").checked });
  }
}

function cancel() {
  drag = null;
  setBox(null);
}

stage.addEventListener("pointerdown", (event) => {
  if (drag) {
    cancel(); // two fingers draw no box
    return;
  }
  if (!shown || event.button !== 0 || !event.isPrimary) return;
  stage.setPointerCapture(event.pointerId);
  drag = { ...place(event), pointer: event.pointerId }; // from here on the picture stands still
  setBox([drag.x, drag.y, 0, 0]);
});

stage.addEventListener("pointermove", (event) => {
  if (event.pointerId !== drag?.pointer) return;
  const { x, y } = place(event);
  setBox([Math.min(x, drag.x), Math.min(y, drag.y), Math.abs(x - drag.x), Math.abs(y - drag.y)]);
});

stage.addEventListener("pointerup", (event) => {
  if (event.pointerId !== drag?.pointer) return;
  drag = null;
  start();
});

stage.addEventListener("pointercancel", (event) => {
  if (event.pointerId === drag?.pointer) cancel();
});

stage.addEventListener("keydown", (event) => {
  const ways = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  const way = ways[event.key];
  if (way && shown) {
    event.preventDefault();
    const [x, y, w, h] = box ?? [0.45, 0.4, 0.1, 0.2];
    const [dx, dy] = way.map((part) => part * KEY_STEP);
    const limit = (value, least, most) => Math.min(Math.max(value, least), most);
    setBox(
      event.shiftKey
        ? [x, y, limit(w + dx, KEY_STEP, 1 - x), limit(h + dy, KEY_STEP, 1 - y)]
        : [limit(x + dx, 0, 1 - w), limit(y + dy, 0, 1 - h), w, h],
    );
    const percent = box.map((value) => Math.round(100 * value));
    find("announced").textContent =
      `box at ${percent[0]}, ${percent[1]}, size ${percent[2]} by ${percent[3]} percent`;
  } else if (event.key === "Enter" && box) {
    start();
  } else if (event.key === "Escape" && box) {
    cancel();
  }
});

for (const input of document.querySelectorAll("input[name=view]")) {
  input.addEventListener("change", () => {
    view = input.value;
    if (socket.readyState === WebSocket.OPEN) socket.send(JSON.stringify({ do: "view", view }));
  });
}

find("reset").addEventListener("click", () => command({ do: "reset", target: 0 }));

// Targets, events and plots

function takeTracks(news) {
  rows.push(...news);
  const before = new Map(targets);
  for (const row of news) {
    // A track and the event that ends it may change places on their ways.
    const late = row.time < (resets.get(row.target) ?? 0) + GAP_S;
    if (row.state === "NO TARGET") targets.clear();
    else if (!late) targets.set(row.target, row);
  }
  for (const [target, row] of targets) {
    const state = before.get(target)?.state;
    if (state && state !== row.state) announce(`target ${target}: ${row.state}`);
  }
}

function age(row) {
  return Date.now() / 1000 - offset - row.time;
}

function refresh() {
  rows = rows.filter((row) => age(row) < WINDOW_S);
  for (const [target, row] of targets) if (age(row) >= WINDOW_S) targets.delete(target);
  showTargets();
  requestAnimationFrame(plot);
}

function announce(text) {
  find("announced").textContent = text;
}

function showTargets() {
  const list = find("targets");
  const items = [...list.querySelectorAll("[data-target]")];
  const known = new Map(items.map((item) => [Number(item.dataset.target), item]));
  for (const [target, row] of targets) {
    const item = known.get(target) ?? list.appendChild(targetItem(target));
    const text = item.firstChild;
    const old = age(row) > GAP_S;
    const since = old ? `, ${number(age(row), 0)} s ago` : "";
    text.textContent = `${target}: ${row.state} ${number(row.score, 2)}${since}`;
    text.dataset.state = old ? "old" : row.state;
    item.dataset.box = JSON.stringify(row.box);
    item.dataset.stamp = row.stamp;
  }
  for (const [target, item] of known) {
    if (targets.has(target)) continue;
    const next = item.nextElementSibling?.querySelector("button") ?? stage;
    if (item.contains(document.activeElement)) next.focus();
    item.remove();
  }
  const reset = find("reset");
  if (!targets.size && document.activeElement === reset) stage.focus();
  reset.disabled = !targets.size;
}

function targetItem(target) {
  const item = element("li");
  item.dataset.target = target;
  const drop = element("button", "Drop");
  drop.type = "button";
  drop.setAttribute("aria-label", `Drop target ${target}`);
  drop.addEventListener("click", () => command({ do: "reset", target }));
  item.append(element("span"), drop);
  return item;
}

function takeEvents(news) {
  for (const { time, target, event } of news) {
    if (event === "RESET") {
      targets.delete(target);
      resets.set(target, time);
    }
    const clock = new Date(1000 * (time + offset)).toLocaleTimeString();
    find("events").prepend(element("li", `${clock} ${event}${target ? ` target ${target}` : ""}`));
  }
  while (find("events").children.length > 50) find("events").lastChild.remove();
}

function plot() {
  const scored = rows.filter((row) => row.state !== "NO TARGET");
  const now = [...targets.values()].find((row) => age(row) <= GAP_S);
  const last = rows.at(-1);
  find("score-now").textContent = now ? number(now.score, 2) : "–";
  find("latency-now").textContent = last?.latency && age(last) <= GAP_S
    ? `${number(last.latency, 0)} ms, network ${number(last.network, 0)} ms`
    : "–";
  curves(find("score"), [[scored, "score", "--good"]], 1, "Score");
  const latencies = rows.map((row) => row.latency);
  const most = Math.max(50, ...latencies);
  const top = [50, 100, 200, 500, 1000, 2000, 5000].find((step) => step >= most) ?? most;
  curves(
    find("latency"),
    [[rows, "latency", "--accent"], [rows, "network", "--quiet"]],
    top,
    "Latency in ms",
  );
}

function curves(canvas, lines, top, name) {
  const ratio = devicePixelRatio;
  const { width, height } = canvas.getBoundingClientRect();
  if (!width) return;
  canvas.width = width * ratio;
  canvas.height = height * ratio;
  const brush = canvas.getContext("2d");
  brush.scale(ratio, ratio);
  const ink = (name) => {
    canvas.style.color = `var(${name})`; // resolved for the light or the dark page
    return getComputedStyle(canvas).color;
  };
  const left = 34;
  const across = (row) => width - (age(row) / WINDOW_S) * (width - left);
  const up = (value) => height - 1 - (Math.min(value, top) / top) * (height - 8);
  brush.font = "11px system-ui";
  brush.fillStyle = ink("--quiet");
  brush.strokeStyle = ink("--line");
  for (const value of [0, top / 2, top]) {
    brush.beginPath();
    brush.moveTo(left, up(value));
    brush.lineTo(width, up(value));
    brush.stroke();
    brush.fillText(String(value), 0, Math.min(up(value) + 8, height));
  }
  const facts = [];
  for (const [points, field, color] of lines) {
    brush.strokeStyle = ink(color);
    brush.lineWidth = 1.5;
    brush.beginPath();
    const before = new Map(); // the last point, by the target's id
    for (const row of points) {
      if (row[field] === null) continue;
      const last = before.get(row.target);
      if (last && row.time - last.time <= GAP_S) {
        brush.moveTo(across(last), up(last[field]));
        brush.lineTo(across(row), up(row[field]));
      }
      before.set(row.target, row);
    }
    brush.stroke();
    const values = points.map((row) => row[field]).filter((value) => value !== null);
    if (values.length) {
      facts.push(`${field} ${number(Math.min(...values), 2)} to ${number(Math.max(...values), 2)}`);
    }
  }
  canvas.setAttribute("aria-label", `${name} in the last minute: ${facts.join(", ") || "none"}`);
}

// Diagnostics and parameters

function showDiagnostics(found) {
  const open = find("diagnostics");
  open.replaceChildren(
    ...found.flatMap(({ name, level, message, values }) => {
      const title = element("dt", level === "OK" ? name : `${name}: ${level}`);
      title.dataset.level = level;
      const details = values.map(([key, value]) => element("dd", `${key}: ${value}`, "value"));
      return [title, element("dd", message), ...details];
    }),
  );
}

function showParameters(found) {
  const list = find("parameters");
  if (list.children.length !== found.length) list.replaceChildren(...found.map(parameterField));
  for (const { name, value } of found) {
    const input = find(`parameter-${name}`);
    if (document.activeElement !== input) setInput(input, value);
    input.dataset.value = JSON.stringify(value);
  }
}

function parameterField({ name, value, text, limits, choices }) {
  const field = element("div", "", "parameter");
  const label = element("label", name);
  const id = `parameter-${name}`;
  label.htmlFor = id;
  let input;
  if (choices.length) {
    input = element("select");
    input.append(...choices.map((choice) => new Option(choice, choice)));
  } else {
    input = element("input");
    input.type = { boolean: "checkbox", number: "number" }[typeof value] ?? "text";
    if (limits) [input.min, input.max] = limits;
    if (input.type === "number") input.step = "any";
  }
  input.id = id;
  const help = element("p", text);
  help.id = `${id}-help`;
  input.setAttribute("aria-describedby", help.id);
  input.addEventListener("change", async () => {
    const typed = { checkbox: input.checked, number: input.valueAsNumber }[input.type];
    const wanted = typed ?? input.value;
    if (Number.isNaN(wanted) || !(await command({ do: "set", name, value: wanted }))) {
      setInput(input, JSON.parse(input.dataset.value));
    }
  });
  field.append(label, input, help);
  return field;
}

function setInput(input, value) {
  if (input.type === "checkbox") input.checked = value;
  else input.value = value;
}

function element(tag, text = "", kind = "") {
  const made = document.createElement(tag);
  made.textContent = text;
  if (kind) made.className = kind;
  return made;
}

function number(value, digits) {
  return value === null ? "–" : value.toFixed(digits);
}

connect();
setInterval(refresh, 1000);
