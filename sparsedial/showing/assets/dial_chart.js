// Line charts as SVG, drawn for the width they have. Ours, since a turn must redraw in a few milliseconds.
"use strict";

const SVG = "http://www.w3.org/2000/svg";
const TEXT = 13, WIDE = 8.3; // font size, and the width of a character: an upper limit for the labels' room
let palette = {}; // colours by name: the page's, as they are since the last change of scheme
const colour = (name) => (palette[name] ??= getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim());

function draw(tag, values, text) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(values)) made.setAttribute(name, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

const exponent = (value) => value.toExponential().replace("e+", "e");
const spelled = (value) => (Math.abs(value) >= 1e6 ? exponent(Number(value.toPrecision(3))) : String(Number(value.toPrecision(4))));

// Round values between two ends; on a logarithmic axis 1, 2 and 5 times powers of ten.
function ticks(low, high, log, most) {
  if (log) {
    const found = [];
    for (let power = Math.floor(low); power <= high; power++) for (const digit of [1, 2, 5]) found.push(Math.log10(digit) + power);
    const inside = found.filter((value) => value >= low && value <= high);
    const whole = inside.filter((value) => Math.abs(value - Math.round(value)) < 1e-9);
    return inside.length > most && whole.length > 1 ? whole : inside;
  }
  const rough = (high - low) / most, size = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((digit) => digit * size).find((value) => value >= rough);
  const first = Math.ceil(low / step - 1e-9);
  return Array.from({ length: Math.max(0, Math.floor(high / step + 1e-9) - first + 1) }, (_, index) => (first + index) * step);
}

/* A chart. `spec`: x {names} or {ticks: [{value, text}]} (a logarithmic axis), xLabel, yLabel, log (the y axis),
   lines [{name, points: [[x, y]], low, high, colour, dash, dots, labels}], level {value, text, colour} (a horizontal line), here [x, y, colour],
   upright (x of a vertical line), title and subtitle. */
function chart(spec, width, height) {
  const onX = spec.x.names ? (x) => x : Math.log10, onY = spec.log ? Math.log10 : (y) => y;
  const named = spec.lines.filter((line) => line.name);
  const ys = spec.lines.flatMap((line) => [...line.points.map((point) => point[1]), ...(line.low ?? []), ...(line.high ?? [])]).concat(spec.level ? [spec.level.value] : []).map(onY);
  const xs = spec.x.names ? [-0.3, spec.x.names.length - 0.7] : spec.lines.flatMap((line) => line.points.map((point) => onX(point[0])));
  const spread = (values, share) => {
    const low = Math.min(...values), high = Math.max(...values), room = (high - low || Math.abs(high) * 0.02 || 1) * share;
    return [low - room, high + room];
  };
  const [left, right] = spread(xs, 0), [bottom, top] = spread(ys, 0.08);
  const yTicks = ticks(bottom, top, spec.log, Math.max(3, Math.floor(height / 60)));
  const yTexts = yTicks.map((value) => spelled(spec.log ? 10 ** value : value));
  const heads = [...(spec.title ? wrapped(spec.title, width, 20) : []).map((text) => [text, 20]), ...(spec.subtitle ? wrapped(spec.subtitle, width, 14) : []).map((text) => [text, 14])];
  const keys = named.map((line) => wrapped(line.name, width - 38, TEXT));
  const above = heads.reduce((sum, [, size]) => sum + size * 1.35, 0) + 18 * (keys.flat().length + 1);
  const box = { left: 10 + WIDE * Math.max(...yTexts.map((text) => text.length)), right: width - 12, top: above + (spec.lines.some((line) => line.labels) ? 20 : 6), bottom: height - 46 };
  const X = (x) => box.left + ((onX(x) - left) / (right - left)) * (box.right - box.left);
  const Y = (y) => box.bottom - ((onY(y) - bottom) / (top - bottom)) * (box.bottom - box.top);
  const svg = draw("svg", { width, height, viewBox: `0 0 ${width} ${height}`, "font-family": "system-ui, sans-serif", "font-size": TEXT, fill: colour("ink") });
  const add = (...given) => { const made = draw(...given); svg.append(made); return made; };
  const text = (x, y, words, more = {}) => add("text", { x, y, ...more }, words);

  let down = 0;
  for (const [words, size] of heads) text(2, (down += size * 1.35) - size * 0.35, words, { "font-size": size, "font-weight": size > 14 ? 600 : 400 });
  text(2, down + 14, spec.yLabel, { fill: colour("muted") });
  let key = down + 10;
  named.forEach((line, index) => {
    add("line", { x1: 2, x2: 30, y1: key + 18, y2: key + 18, stroke: line.colour, "stroke-width": 3, "stroke-dasharray": line.dash ?? "none" });
    for (const words of keys[index]) text(38, (key += 18) + 4, words);
  });

  for (const [index, value] of yTicks.entries()) {
    const y = Y(spec.log ? 10 ** value : value);
    add("line", { x1: box.left, x2: box.right, y1: y, y2: y, stroke: colour("line") });
    text(box.left - 6, y + 4, yTexts[index], { "text-anchor": "end" });
  }
  let free = -Infinity; // where the next label of the x axis may begin
  const xTicks = spec.x.names ? spec.x.names.map((name, index) => ({ value: index, text: name })) : spec.x.ticks;
  for (const tick of xTicks) {
    const x = X(tick.value), half = (tick.text.length * WIDE) / 2, middle = Math.min(Math.max(x, half), width - half);
    add("line", { x1: x, x2: x, y1: box.bottom, y2: box.bottom + 5, stroke: colour("muted") });
    if (middle - half < free) continue;
    text(middle, box.bottom + 19, tick.text, { "text-anchor": "middle" });
    free = middle + half + 10;
  }
  text((box.left + box.right) / 2, height - 6, spec.xLabel, { "text-anchor": "middle", fill: colour("muted") });

  if (spec.upright) add("line", { x1: X(spec.upright), x2: X(spec.upright), y1: box.top, y2: box.bottom, stroke: colour("muted"), "stroke-dasharray": "2 4", "stroke-width": 2 });
  for (const line of spec.lines) {
    if (!line.low?.length) continue;
    const over = line.points.map(([x], index) => `${X(x)},${Y(line.high[index])}`), under = line.points.map(([x], index) => `${X(x)},${Y(line.low[index])}`);
    add("polygon", { points: [...over, ...under.reverse()].join(" "), fill: line.colour, opacity: 0.18 });
  }
  if (spec.level) {
    const y = Y(spec.level.value);
    add("line", { x1: box.left, x2: box.right, y1: y, y2: y, stroke: spec.level.colour, "stroke-dasharray": "2 4", "stroke-width": 2 });
  }
  for (const line of spec.lines) {
    add("polyline", { points: line.points.map(([x, y]) => `${X(x)},${Y(y)}`).join(" "), fill: "none", stroke: line.colour, "stroke-width": 2.5, "stroke-dasharray": line.dash ?? "none" });
    if (line.dots) for (const [index, [x, y]] of line.points.entries()) add("circle", { cx: X(x), cy: Y(y), r: 4, fill: line.colour }).append(draw("title", {}, `${line.labels?.[index] ?? spec.x.names[x]}: ${spelled(y)}`));
  }
  const halo = { stroke: colour("paper"), "stroke-width": 4, "paint-order": "stroke" };
  const taken = []; // by labels of points: left, right, top, bottom; one that fits neither above nor below is left out
  for (const line of spec.lines) for (const [index, words] of (line.labels ?? []).entries()) {
    const half = (words.length * WIDE) / 2, x = Math.min(Math.max(X(line.points[index][0]), box.left + half), box.right - half), y = Y(line.points[index][1]);
    const spots = [y - 10, y + 20].map((base) => [x - half, x + half, base - TEXT, base + 3, base]);
    const spot = spots.find(([from, to, high, low]) => taken.every((one) => to < one[0] || from > one[1] || low < one[2] || high > one[3]));
    if (!spot) continue;
    taken.push(spot);
    text(x, spot[4], words, { "text-anchor": "middle", ...halo });
  }
  if (spec.level?.text) {
    const points = spec.lines[0].points, below = points[Math.floor(points.length / 2)][1] > spec.level.value;
    text((box.left + box.right) / 2, Y(spec.level.value) + (below ? 15 : -6), spec.level.text, { "text-anchor": "middle", fill: spec.level.colour, ...halo });
  }
  if (spec.here) add("circle", { cx: X(spec.here[0]), cy: Y(spec.here[1]), r: 8, fill: spec.here[2], stroke: colour("paper"), "stroke-width": 3 });
  return svg;
}

function wrapped(text, width, size) {
  const most = Math.floor(width / (size * 0.56)), rows = [""];
  for (const word of text.split(" ")) {
    if (rows.at(-1) && rows.at(-1).length + word.length >= most) rows.push("");
    rows.push(`${rows.pop()} ${word}`.trim());
  }
  return rows;
}

// Puts a chart where it belongs, for a width in pixels. Before the width is known nothing is drawn.
function place(id, spec, width) {
  by(id).hidden = !spec;
  if (spec && width) by(id).replaceChildren(chart(spec, width, Math.min(320, Math.max(270, width * 0.6))));
}

// A chart as a PNG, twice as fine as a screen, on the page's paper.
async function picture(spec) {
  const width = 1000, height = 600;
  const drawn = chart(spec, width - 40, height - 40);
  drawn.setAttribute("xmlns", SVG);
  const image = new Image();
  image.src = URL.createObjectURL(new Blob([new XMLSerializer().serializeToString(drawn)], { type: "image/svg+xml" }));
  await image.decode();
  const canvas = make("canvas", { width: 2 * width, height: 2 * height });
  const brush = canvas.getContext("2d");
  brush.scale(2, 2);
  brush.fillStyle = colour("paper");
  brush.fillRect(0, 0, width, height);
  brush.drawImage(image, 20, 20, width - 40, height - 40);
  URL.revokeObjectURL(image.src);
  return new Promise((done) => canvas.toBlob(done, "image/png"));
}
