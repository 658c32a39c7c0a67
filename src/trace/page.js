'use strict';
const data = JSON.parse(document.getElementById('data').textContent);
const $ = id => document.getElementById(id);
const canvas = $('lanes'), frame = $('frame'), room = $('room');
const SIZE = 6, AXIS = 24, LOW = 30, PRINTED = 40;
// How high a client's lane is: where there are few, there is room.
let tall = 50;
const [BEGAN, TOOK, LOOK, WORDS, SENT, CLIENT] = [0, 1, 2, 3, 4, 5];
const look = Object.fromEntries(data.looks.map((name, index) => [name, index]));
const isState = new Set(['reading', 'idle', 'sending', 'queued', 'disk', 'descriptor', 'closing', 'waiting'].map(n => look[n]));
const isStep = new Set(['step', 'deadline', 'source'].map(n => look[n]));
const all = data.lanes.filter(lane => lane.items.length > 0);
let colours = {}, shown = all, from = 0, until = data.span, pinned = null, pointed = null, printing = false;
let slowest = -1;

// What each client was sent so far, to draw it as a curve against the most that one got.
let most = 1;
for (const lane of all) {
  lane.curve = [];
  let sum = 0;
  if (lane.kind === 'client') for (let i = 0; i < lane.items.length; i += SIZE) {
    if (lane.items[i + SENT] === 0) continue;
    sum += lane.items[i + SENT];
    lane.curve.push(lane.items[i + BEGAN], sum);
  }
  lane.sent = sum;
  most = Math.max(most, sum);
}
const sentByAll = all.reduce((sum, lane) => sum + lane.sent, 0);
all.forEach((lane, index) => { lane.hue = index * 137.5 % 360; });

const clock = (ns, step = ns) => step < 1e3 ? ns + ' ns' : step < 1e6 ? +(ns / 1e3).toFixed(3) + ' µs'
  : step < 1e9 ? +(ns / 1e6).toFixed(3) + ' ms' : +(ns / 1e9).toFixed(3) + ' s';
const bytes = n => { let unit = 0; while (n >= 1024 && unit < 4) { n /= 1024; unit++; } return unit ? n.toFixed(1) + ' ' + 'KMGT'[unit - 1] + 'iB' : n + ' B'; };
const height = lane => lane.kind === 'client' ? tall : LOW;
const labels = width => width < 560 ? 92 : 190;

function readColours() {
  const style = getComputedStyle(document.documentElement);
  for (const name of [...data.looks, 'paper', 'card', 'ink', 'soft', 'rule']) colours[name] = style.getPropertyValue('--' + name).trim();
}

function filter() {
  const text = $('client').value.trim().toLowerCase();
  const has = lane => lane.name.toLowerCase().includes(text) || lane.asked.some(([, name]) => name.toLowerCase().includes(text));
  shown = all.filter(lane => text === '' || lane.kind !== 'client' || has(lane));
  frame.scrollTop = 0;
  layOut();
}

// Only what can be seen is drawn: the canvas is as high as the frame and stays in it.
function layOut() {
  if (printing) shown = shown.slice(0, PRINTED);
  const clients = shown.filter(lane => lane.kind === 'client').length, most = printing ? 600 : Math.min(.62 * innerHeight, 700);
  tall = Math.max(50, Math.min(120, (most - AXIS - LOW * (shown.length - clients)) / Math.max(1, clients)));
  const total = AXIS + shown.reduce((sum, lane) => sum + height(lane), 0);
  const wide = printing ? 760 : room.clientWidth, high = printing ? total : Math.min(total, most);
  const scale = printing ? 2 : window.devicePixelRatio || 1;
  room.style.height = printing ? 'auto' : total + 'px';
  canvas.style.height = printing ? 'auto' : high + 'px';
  canvas.width = Math.round(wide * scale);
  canvas.height = Math.round(high * scale);
  canvas.wide = wide; canvas.high = high;
  canvas.getContext('2d').setTransform(scale, 0, 0, scale, 0, 0);
  draw();
}

const xOf = at => labels(canvas.wide) + (at - from) / (until - from) * (canvas.wide - labels(canvas.wide));
const atOf = x => from + (x - labels(canvas.wide)) / (canvas.wide - labels(canvas.wide)) * (until - from);

function draw() {
  const g = canvas.getContext('2d'), wide = canvas.wide, left = labels(wide);
  g.clearRect(0, 0, wide, canvas.high);
  g.font = '12px system-ui, sans-serif';
  g.textBaseline = 'middle';
  const lines = axis(g, left, wide);
  g.save();
  g.beginPath(); g.rect(0, AXIS, wide, canvas.high - AXIS); g.clip();
  let y = AXIS - (printing ? 0 : frame.scrollTop);
  for (const lane of shown) {
    if (y + height(lane) > AXIS && y < canvas.high) {
      g.strokeStyle = colours.rule; g.lineWidth = 1;
      for (const x of lines) { g.beginPath(); g.moveTo(x, y); g.lineTo(x, y + height(lane)); g.stroke(); }
      g.save();
      g.beginPath(); g.rect(left, y, wide - left, height(lane)); g.clip();
      drawLane(g, lane, y);
      g.restore();
      drawLabel(g, lane, y, left);
    }
    y += height(lane);
    g.fillStyle = colours.rule; g.fillRect(0, y - 1, wide, 1);
  }
  g.restore();
}

function axis(g, left, wide) {
  const span = until - from, least = span / Math.max(2, (wide - left) / 110);
  let step = 10 ** Math.floor(Math.log10(least));
  step *= [1, 2, 5, 10].find(n => n * step >= least);
  const lines = [];
  g.fillStyle = colours.soft; g.textAlign = 'center';
  for (let at = Math.ceil(from / step) * step; at <= until; at += step) {
    const x = xOf(at);
    lines.push(Math.round(x) + .5);
    if (x > left + 24 && x < wide - 24) g.fillText(clock(at, Math.max(at, 1)), x, AXIS / 2);
  }
  g.textAlign = 'left';
  return lines;
}

function drawLabel(g, lane, y, left) {
  g.fillStyle = colours.card; g.fillRect(0, y, left - 4, height(lane) - 1);
  if (lane.kind === 'client') { g.fillStyle = `hsl(${lane.hue} 65% 50%)`; g.fillRect(0, y, 4, height(lane) - 1); }
  const put = (text, line, colour) => {
    g.fillStyle = colour;
    while (g.measureText(text).width > left - 16 && text.length > 4) text = text.slice(0, -2).replace(/…?$/, '…');
    g.fillText(text, 10, y + line);
  };
  const short = left < 120 ? lane.name.replace(/^.*(?=:\d+$)/, '') : lane.name;
  if (lane.kind !== 'client') return put(short, height(lane) / 2, colours.ink);
  put(short, 10, colours.ink);
  const asked = lane.asked.length ? lane.asked[lane.asked.length - 1][1] : '–';
  put(asked.replace(/^GET (.*) HTTP\/1\.[01]$/, '$1'), 25, colours.soft);
  put(`${bytes(lane.sent)}, ${Math.round(100 * lane.sent / Math.max(1, sentByAll))} %`, 40, colours.soft);
}

function drawLane(g, lane, y) {
  const slow = 1e3 * (+$('slow').value || 0), isClient = lane.kind === 'client';
  const barTop = y + 3, barHigh = isClient ? .36 * tall : height(lane) - 7, floor = y + height(lane) - 3;
  const ticks = floor - barTop - barHigh - 2;
  const last = {};
  const {items} = lane;
  for (let i = 0; i < items.length; i += SIZE) {
    const at = items[i + BEGAN], end = at + items[i + TOOK], kind = items[i + LOOK];
    if (end < from || at > until) continue;
    const x = Math.max(xOf(at), -1e4), wide = Math.max(xOf(end) - x, 1);
    const name = data.looks[kind];
    // What would be drawn over its like in the same pixel is left out.
    const key = kind + (items[i + CLIENT] >= 0 ? 'c' + items[i + CLIENT] : '');
    const rise = ticks * ({send: .2 + .8 * Math.min(1, Math.log2(1 + items[i + SENT]) / 20), receive: .5, blocked: 1}[name] || .25);
    if (last[key] && x + wide <= last[key].x && rise <= last[key].rise) continue;
    last[key] = {x: Math.floor(x) + 1, rise};
    g.fillStyle = colours[name];
    g.globalAlpha = isStep.has(kind) && items[i + TOOK] < slow ? .15 : 1;
    if (isState.has(kind)) g.fillRect(x, barTop, wide, barHigh);
    else if (isStep.has(kind)) {
      if (items[i + CLIENT] >= 0) g.fillStyle = `hsl(${data.lanes[items[i + CLIENT]].hue} 65% 50%)`;
      g.fillRect(x, barTop, wide, barHigh);
    } else if (name === 'end' || name === 'cut') {
      g.fillRect(x - 1, barTop, 3, floor - barTop);
    } else if (isClient) {
      g.fillRect(x, floor - rise, name === 'blocked' ? Math.max(wide, 1.5) : wide, rise);
    } else g.fillRect(x, floor - 8, wide, 8);
  }
  g.globalAlpha = 1;
  if (lane.curve.length) drawCurve(g, lane, floor - ticks, floor);
  for (const one of [pinned, pointed]) if (one && one.lane === lane) {
    const x = xOf(items[one.i + BEGAN]), wide = Math.max(xOf(items[one.i + BEGAN] + items[one.i + TOOK]) - x, 2);
    g.strokeStyle = colours.ink; g.lineWidth = 1.5;
    g.strokeRect(x - 1, y + 2, wide + 2, height(lane) - 5);
  }
}

function drawCurve(g, {curve, items}, top, floor) {
  const yOf = sum => floor - (floor - top) * sum / most;
  g.beginPath();
  g.moveTo(xOf(curve[0]), floor);
  let before = floor;
  for (let i = 0; i < curve.length; i += 2) {
    g.lineTo(xOf(curve[i]), before);
    before = yOf(curve[i + 1]);
    g.lineTo(xOf(curve[i]), before);
  }
  const last = items.length - SIZE;
  g.lineTo(xOf(items[last + BEGAN] + items[last + TOOK]), before);
  for (const [colour, width] of [[colours.card, 4], [colours.ink, 1.5]]) {
    g.strokeStyle = colour; g.lineWidth = width;
    g.stroke();
  }
}

// What is under the pointer: of several the shortest, since it lies in the others.
function find(x, y) {
  let top = AXIS - frame.scrollTop;
  for (const lane of shown) {
    if (y >= top && y < top + height(lane) && y >= AXIS && x >= labels(canvas.wide)) {
      const lower = lane.kind === 'client' && y > top + 4 + .36 * tall, near = (until - from) / canvas.wide * 4, at = atOf(x);
      let best = null;
      for (let i = 0; i < lane.items.length; i += SIZE) {
        const began = lane.items[i], took = lane.items[i + TOOK], kind = lane.items[i + LOOK];
        const off = Math.max(began - at, at - began - took, 0);
        if (off > near) continue;
        const other = lower && (isState.has(kind) || isStep.has(kind)) || !lower && lane.kind === 'client' && !isState.has(kind) && !isStep.has(kind);
        const badness = (other ? 1e15 : 0) + off * 1e3 + took;
        if (!best || badness < best.badness) best = {lane, i, badness};
      }
      return best;
    }
    top += height(lane);
  }
  return null;
}

function tell(found) {
  const about = $('about');
  if (!found) return;
  const {items} = found.lane, [title, rule, man, fn] = data.words[items[found.i + WORDS]];
  const client = items[found.i + CLIENT] >= 0 ? data.lanes[items[found.i + CLIENT]].name : found.lane.name;
  about.replaceChildren();
  const add = (tag, text, kind) => {
    const element = document.createElement(tag);
    element.textContent = text;
    if (kind) element.className = kind;
    about.append(element);
    return element;
  };
  add('h2', title);
  add('p', `${client}, at ${clock(items[found.i + BEGAN])} for ${clock(items[found.i + TOOK])}`, 'soft');
  add('p', rule);
  const read = add('p', 'Read on: ', 'soft');
  for (const [index, text] of ['man ' + man.replace(/(.*)\((.*)\)/, '$2 $1'), fn].entries()) {
    if (index) read.append(' and ');
    const code = document.createElement('code');
    code.textContent = text;
    read.append(code);
  }
}

function show(a, b) {
  const span = Math.min(Math.max(b - a, 200), data.span);
  from = Math.min(Math.max(a, 0), data.span - span);
  until = from + span;
  draw();
}
const zoom = (by, at = (from + until) / 2) => show(at - (at - from) * by, at + (until - at) * by);

function nextSlow() {
  const steps = [];
  for (const lane of shown) if (lane.kind === 'client') for (let i = 0; i < lane.items.length; i += SIZE)
    if (isStep.has(lane.items[i + LOOK])) steps.push({lane, i, took: lane.items[i + TOOK]});
  steps.sort((a, b) => b.took - a.took);
  if (!steps.length) return;
  slowest = (slowest + 1) % Math.min(steps.length, 20);
  pinned = steps[slowest];
  const at = pinned.lane.items[pinned.i];
  let top = 0;
  for (const lane of shown) { if (lane === pinned.lane) break; top += height(lane); }
  if (top < frame.scrollTop || top + tall + AXIS > frame.scrollTop + frame.clientHeight) frame.scrollTop = top;
  show(at - 2 * pinned.took, at + 3 * pinned.took);
  tell(pinned);
}

const touches = new Map();
let moved = 0;
canvas.addEventListener('pointerdown', event => {
  touches.set(event.pointerId, event);
  canvas.setPointerCapture(event.pointerId);
  moved = 0;
});
canvas.addEventListener('pointermove', event => {
  const before = touches.get(event.pointerId);
  if (!before) {
    pointed = find(event.offsetX, event.offsetY);
    if (!pinned) tell(pointed);
    return draw();
  }
  const perPixel = (until - from) / (canvas.wide - labels(canvas.wide));
  const others = [...touches.values()].filter(other => other.pointerId !== event.pointerId);
  if (others.length) {
    const gap = one => Math.max(20, Math.abs(one.offsetX - others[0].offsetX));
    zoom(gap(before) / gap(event), atOf((event.offsetX + others[0].offsetX) / 2));
    moved = 99;
  } else {
    const by = event.offsetX - before.offsetX;
    moved += Math.abs(by);
    if (moved > 3) show(from - by * perPixel, until - by * perPixel);
  }
  touches.set(event.pointerId, event);
});
canvas.addEventListener('pointerup', event => {
  touches.delete(event.pointerId);
  if (moved > 3) return;
  pinned = find(event.offsetX, event.offsetY);
  tell(pinned);
  draw();
});
canvas.addEventListener('pointercancel', event => touches.delete(event.pointerId));
canvas.addEventListener('pointerleave', () => { pointed = null; draw(); });
canvas.addEventListener('dblclick', event => zoom(.25, atOf(event.offsetX)));
canvas.addEventListener('wheel', event => {
  if (!(event.ctrlKey || event.metaKey || event.shiftKey) && Math.abs(event.deltaX) <= Math.abs(event.deltaY)) return;
  event.preventDefault();
  const by = event.deltaX || event.deltaY, width = until - from;
  if (event.ctrlKey || event.metaKey) zoom(by > 0 ? 1.25 : .8, atOf(event.offsetX));
  else show(from + width * by / 800, until + width * by / 800);
}, {passive: false});
const keys = {
  '+': () => zoom(.5), '=': () => zoom(.5), '-': () => zoom(2), '0': () => show(0, data.span), 'Escape': () => { pinned = null; draw(); },
  'ArrowLeft': () => show(from - (until - from) / 5, until - (until - from) / 5),
  'ArrowRight': () => show(from + (until - from) / 5, until + (until - from) / 5),
};
document.addEventListener('keydown', event => {
  if (event.target.tagName === 'INPUT' || event.ctrlKey || event.metaKey || !keys[event.key]) return;
  event.preventDefault();
  keys[event.key]();
});
$('in').onclick = () => zoom(.5);
$('out').onclick = () => zoom(2);
$('all').onclick = () => { pinned = null; show(0, data.span); };
$('slowest').onclick = nextSlow;
$('print').onclick = () => window.print();
$('client').oninput = filter;
$('slow').oninput = draw;
$('tools').onsubmit = event => event.preventDefault();
frame.addEventListener('scroll', draw);
window.addEventListener('resize', layOut);
matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => { readColours(); draw(); });
const print = on => {
  printing = on;
  document.documentElement.classList.toggle('print', on);
  readColours();
  filter();
};
window.addEventListener('beforeprint', () => print(true));
window.addEventListener('afterprint', () => print(false));
// What happened, without the silence around it.
const busy = all.filter(lane => lane.kind === 'client').flatMap(lane => [lane.items[0], Math.max(...[lane.items.length - SIZE].map(i => lane.items[i] + lane.items[i + TOOK]))]);
readColours();
if (busy.length) {
  const a = busy.reduce((x, y) => Math.min(x, y)), b = busy.reduce((x, y) => Math.max(x, y)), edge = (b - a) * .02 + 1e3;
  from = Math.max(0, a - edge); until = Math.min(data.span, b + edge);
}
filter();
