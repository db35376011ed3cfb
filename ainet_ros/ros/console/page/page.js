// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: the authors of ainet_ros
// The operator's page. What goes over the socket is described in ../server.py.

const WINDOW_S = 60;
const GAP_S = 3; // a curve is not drawn across
const LEAST_BOX = 4; // pixels of the picture
const KEY_STEP = 0.01; // of the picture's width and height
const VIEWS = ["overlay", "rgb", "thermal"]; // as the server counts them
const RETRY_MS = [500, 1000, 2000, 5000];

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
let drag = null; // {x, y} where the drag began
let rows = []; // tracks of the last WINDOW_S
let offset = 0; // this clock less the server's, in seconds
let targets = new Map();
let requests = new Map(); // what to do with the reply, by the request's number
let counter = 0;

// The socket

function connect() {
  const scheme = location.protocol === "https:" ? "wss:" : "ws:";
  socket = new WebSocket(`${scheme}//${location.host}/socket`);
  socket.binaryType = "arraybuffer";
  socket.onopen = () => {
    tries = 0;
    rows = [];
    targets.clear();
    find("events").replaceChildren();
    status("connected");
    socket.send(JSON.stringify({ do: "view", view }));
  };
  socket.onmessage = ({ data }) => (typeof data === "string" ? take(JSON.parse(data)) : show(data));
  socket.onclose = () => {
    for (const settle of requests.values()) settle({ done: false, text: "connection lost" });
    requests.clear();
    status("connection lost, trying again", true);
    setTimeout(connect, RETRY_MS[Math.min(tries++, RETRY_MS.length - 1)]);
  };
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
  if (news.diagnostics) showDiagnostics(news.diagnostics);
  if (news.parameters) showParameters(news.parameters);
}

function status(text, bad = false) {
  find("connection").textContent = text;
  find("connection").dataset.state = bad ? "bad" : "good";
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
  const { image: { width, height }, stamp, of } = shown; // of what the box was drawn on
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

stage.addEventListener("pointerdown", (event) => {
  if (!shown || event.button !== 0) return;
  stage.setPointerCapture(event.pointerId);
  drag = place(event); // from here on the picture stands still
  setBox([drag.x, drag.y, 0, 0]);
});

stage.addEventListener("pointermove", (event) => {
  if (!drag) return;
  const { x, y } = place(event);
  setBox([Math.min(x, drag.x), Math.min(y, drag.y), Math.abs(x - drag.x), Math.abs(y - drag.y)]);
});

stage.addEventListener("pointerup", () => {
  if (!drag) return;
  drag = null;
  start();
});

stage.addEventListener("pointercancel", () => {
  drag = null;
  setBox(null);
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
    drag = null;
    setBox(null);
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
  rows = rows.filter((row) => row.time > rows.at(-1).time - WINDOW_S);
  const newest = rows.at(-1).stamp;
  const now = rows.filter((row) => row.stamp === newest && row.state !== "NO TARGET");
  const next = new Map(now.map((row) => [row.target, row]));
  for (const [target, row] of next) {
    const before = targets.get(target)?.state;
    if (before && before !== row.state) announce(`target ${target}: ${row.state}`);
  }
  targets = next;
  showTargets();
  requestAnimationFrame(plot);
}

function announce(text) {
  find("announced").textContent = text;
}

function showTargets() {
  const list = find("targets");
  const shownIds = [...list.children].map((item) => item.dataset.target ?? "").join();
  if (shownIds !== [...targets.keys()].join() || !targets.size) {
    list.replaceChildren(...[...targets.keys()].map(targetItem));
    if (!targets.size) list.append(element("li", "none"));
  }
  for (const item of list.children) {
    const row = targets.get(Number(item.dataset.target));
    if (!row) continue;
    const text = item.firstChild;
    text.textContent = `${row.target}: ${row.state} ${number(row.score, 2)}`;
    text.dataset.state = row.state;
    item.dataset.box = JSON.stringify(row.box);
    item.dataset.stamp = row.stamp;
  }
  find("reset").disabled = !targets.size;
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
    const clock = new Date(1000 * (time + offset)).toLocaleTimeString();
    find("events").prepend(element("li", `${clock} ${event}${target ? ` target ${target}` : ""}`));
  }
  while (find("events").children.length > 50) find("events").lastChild.remove();
}

function plot() {
  const scored = rows.filter((row) => row.state !== "NO TARGET");
  const last = rows.at(-1);
  const score = targets.size ? number([...targets.values()][0].score, 2) : "–";
  find("score-now").textContent = score;
  find("latency-now").textContent = last?.latency
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
  const end = rows.at(-1)?.time ?? 0;
  const left = 34;
  const across = (time) => width - ((end - time) / WINDOW_S) * (width - left);
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
    let before = null;
    for (const row of points) {
      if (row[field] === null) continue;
      const gap = !before || row.time - before.time > GAP_S || row.target !== before.target;
      brush[gap ? "moveTo" : "lineTo"](across(row.time), up(row[field]));
      before = row;
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
