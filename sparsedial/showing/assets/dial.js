// The page holds no formula: it shows the numbers and texts that the Python behind /api/ returns.
"use strict";

const CURRENCIES = ["flops", "seconds", "gpu_hours", "joules", "dollars", "target_loss"];
const by = (id) => document.getElementById(id);
const form = by("question");
let start = null; // laws, devices and the first state
let shown = null; // the last answer to /api/dial
let asked = 0; // number of the newest question, so that late answers are dropped

const field = (name) => form.elements.namedItem(name);

function state() {
  const values = {};
  const amount = field("amount").value.trim();
  if (amount) values[field("currency").value] = amount;
  for (const element of form.elements) {
    if (!element.name || ["amount", "currency"].includes(element.name)) continue;
    const value = element.value.trim();
    if (value && !(element.name === "law" && value === start.law)) values[element.name] = value;
  }
  return values;
}

function fill(values) {
  for (const element of form.elements) if (element.name && element.name !== "currency") element.value = values[element.name] ?? "";
  const currency = CURRENCIES.find((name) => name in values) ?? "flops";
  field("currency").value = currency;
  field("amount").value = values[currency] ?? "";
  field("law").value = values.law ?? start.law;
}

function options(select, names, empty) {
  select.replaceChildren(...(empty ? [new Option(empty, "")] : []), ...names.map((name) => new Option(name, name)));
}

async function ask(name, values) {
  const answer = await fetch(`api/${name}?${new URLSearchParams(values)}`);
  const body = await answer.json();
  if (!answer.ok) throw new Error([body.error, body.hint].filter(Boolean).join(": "));
  return body;
}

async function refresh() {
  const number = ++asked;
  const values = state();
  try {
    const answer = await ask("dial", values);
    if (number !== asked) return;
    const keep = shown && shown.positions[by("dial").value]?.sparsity;
    shown = answer;
    const wanted = "position" in first ? Number(first.position) : keep;
    delete first.position;
    const position = shown.positions.findIndex((row) => row.sparsity === wanted);
    by("dial").max = shown.positions.length - 1;
    by("dial").value = position >= 0 ? position : shown.best;
    by("ticks").replaceChildren(...shown.positions.map((_, index) => new Option("", index)));
    by("finding").textContent = shown.words;
    by("finding").className = "";
    turn();
    drawTable();
    crossing(values, number);
  } catch (problem) {
    if (number !== asked) return;
    by("finding").textContent = problem.message;
    by("finding").className = "wrong";
  }
}

function turn() {
  const position = Number(by("dial").value);
  const row = shown.positions[position];
  const words = row.words;
  by("sparsity").textContent = words.sparsity;
  by("dial").setAttribute("aria-valuetext", `${words.sparsity}, loss ${words.loss}`);
  for (const name of ["loss", "gap", "parameters", "active", "tokens", "time", "energy", "money", "memory", "serving", "shape"])
    by(name).textContent = words[name];
  const item = (name) => (text) => Object.assign(document.createElement("li"), { textContent: `${name}: ${text}.`.replace("..", "."), className: name.toLowerCase() });
  by("notes").replaceChildren(...row.marks.map(item("Mind")), ...row.warnings.map(item("Note")));
  by("sparsest").textContent = shown.positions.at(-1).words.sparsity;
  const values = { ...state(), position: row.sparsity };
  history.replaceState(null, "", `?${new URLSearchParams(values)}`);
  by("command").textContent = shown.command.replace("SPARSITY", String(row.sparsity));
  for (const [index, line] of [...by("table").tBodies[0].rows].entries()) line.toggleAttribute("aria-current", index === position);
  drawDial(position);
}

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

function layout(x, y) {
  const axis = { gridcolor: colour("line"), zeroline: false, linecolor: colour("line"), tickcolor: colour("line") };
  return {
    margin: { l: 58, r: 16, t: 8, b: 48 }, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    font: { color: colour("ink"), family: "system-ui, sans-serif", size: 13 }, showlegend: false, hovermode: "closest",
    xaxis: { ...axis, title: { text: x } }, yaxis: { ...axis, title: { text: y } },
  };
}

function drawDial(position) {
  const rows = shown.positions, names = rows.map((row) => row.words.short);
  const losses = rows.map((row) => row.predicted_loss.mean);
  const traces = [];
  if (rows[0].predicted_loss.low !== null) {
    traces.push({ x: names, y: rows.map((row) => row.predicted_loss.high), mode: "lines", line: { width: 0 }, hoverinfo: "skip" });
    traces.push({ x: names, y: rows.map((row) => row.predicted_loss.low), mode: "lines", line: { width: 0 }, fill: "tonexty", fillcolor: "rgba(90,130,220,.22)", hoverinfo: "skip" });
  }
  traces.push({ x: names, y: losses, mode: "lines+markers", line: { color: colour("sparse") }, marker: { size: 7 }, hovertemplate: "%{x}: %{y:.3f}<extra></extra>" });
  traces.push({ x: [names[position]], y: [losses[position]], mode: "markers", marker: { size: 16, color: colour("sparse"), line: { width: 3, color: colour("paper") } }, hoverinfo: "skip" });
  const plan = layout("sparsity, 1 − top_k/experts", "loss, nats per token");
  plan.xaxis.type = "category";
  plan.xaxis.tickangle = 0;
  if (shown.dense !== null) {
    const dense = losses[shown.dense];
    plan.shapes = [{ type: "line", xref: "paper", x0: 0, x1: 1, y0: dense, y1: dense, line: { color: colour("dense"), dash: "dot", width: 2 } }];
    plan.annotations = [{ xref: "paper", x: 1, xanchor: "right", y: dense, yanchor: losses.at(-1) > dense ? "top" : "bottom", text: "best dense model", showarrow: false, bgcolor: colour("paper"), font: { color: colour("dense") } }];
  }
  Plotly.react("by-sparsity", traces, plan, { displayModeBar: false, responsive: true });
  by("by-sparsity").setAttribute("aria-label", shown.words);
}

async function crossing(values, number) {
  const answer = await ask("crossover", values);
  if (number !== asked) return;
  by("crossing").textContent = answer.words;
  by("by-budget").setAttribute("aria-label", answer.words);
  const line = (y, name) => ({ x: answer.budgets, y, mode: "lines", line: { color: colour(name), width: 2.5 }, hovertemplate: `${name}: %{y:.3f}<extra></extra>` });
  const plan = layout(answer.axis, "loss, nats per token");
  plan.xaxis.type = "log";
  plan.xaxis.exponentformat = "power";
  plan.margin.r = 60; // room for the names at the ends of the lines
  const higher = answer.budgets.length && answer.dense_loss.at(-1) > answer.sparse_loss.at(-1) ? "dense" : "sparse";
  const end = (y, name) => ({ x: 1, xref: "paper", xanchor: "left", y: y.at(-1), yanchor: name === higher ? "bottom" : "top", text: name, showarrow: false, font: { color: colour(name) } });
  plan.annotations = answer.budgets.length ? [end(answer.dense_loss, "dense"), end(answer.sparse_loss, "sparse")] : [];
  plan.shapes = [];
  if (answer.crossover) plan.shapes.push({ type: "line", yref: "paper", y0: 0, y1: 1, x0: answer.crossover.value, x1: answer.crossover.value, line: { color: colour("muted"), dash: "dot" } });
  Plotly.react("by-budget", [line(answer.dense_loss ?? [], "dense"), line(answer.sparse_loss ?? [], "sparse")], plan, { displayModeBar: false, responsive: true });
}

function drawTable() {
  by("table").tBodies[0].replaceChildren(...shown.positions.map((row) => {
    const line = document.createElement("tr");
    for (const name of ["sparsity", "loss", "parameters", "active", "tokens", "time"]) line.insertCell().textContent = row.words[name];
    return line;
  }));
}

function save(name, text, type) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type }));
  link.download = name;
  link.click();
  URL.revokeObjectURL(link.href);
}

async function copy(text, what) {
  try {
    await navigator.clipboard.writeText(text);
    by("message").textContent = `${what} copied`;
  } catch {
    by("message").textContent = `${what} could not be copied; select it by hand`;
  }
}

by("dial").addEventListener("input", turn);
by("to-best").addEventListener("click", () => { by("dial").value = shown.best; turn(); });
form.addEventListener("input", refresh);
form.addEventListener("submit", (event) => event.preventDefault());
by("copy-command").addEventListener("click", () => copy(by("command").textContent, "command"));
by("copy-link").addEventListener("click", () => copy(location.href, "link"));
by("save-png").addEventListener("click", () => Plotly.downloadImage("by-sparsity", { format: "png", width: 1200, height: 700, filename: "sparsedial" }));
by("save-csv").addEventListener("click", () => save("sparsedial.csv", shown.csv, "text/csv"));
by("save-plan").addEventListener("click", async () => {
  const row = shown.positions[by("dial").value];
  const plan = await ask("plan", { ...state(), sparsity: row.sparsity });
  save("plan.json", JSON.stringify(plan, null, 1), "application/json");
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", refresh);

const first = Object.fromEntries(new URLSearchParams(location.search));
(async () => {
  start = await ask("start", {});
  options(field("law"), start.laws);
  options(field("device"), start.devices, start.study ? "this machine" : "none");
  if (!Object.keys(first).some((name) => CURRENCIES.includes(name))) Object.assign(first, { ...start.state, ...first });
  fill(first);
  await refresh();
})();
