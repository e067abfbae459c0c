// The page holds no formula: it shows the numbers and texts that the Python behind /api/ returns.
"use strict";

const TILES = ["loss", "gap", "parameters", "active", "tokens", "time", "energy", "money", "memory", "serving"];
const REST = 100; // milliseconds: the address follows a turn when it rests, since browsers bound how often it may change
const LULL = 120; // milliseconds without another question, after which the chart against the budget is asked for
const PAUSE = 1500; // milliseconds: turns, or letters typed in one field, that follow closer are one step back
const FAR = 10; // times: models that much larger or smaller than a checkpoint are not drawn beside it
const NO_COMMAND = "The command stands here once the question has an answer.";
let shown = null; // the last answer to /api/dial
let second = null; // that of the second law
let races = []; // the answers to /api/crossover: of the law, and of the second one
let stale = ""; // why what is shown does not answer the question
let asked = 0; // number of the newest question, so that late answers are dropped
let at = null; // the sparsity that the dial stands at, or that a link asks for
let last = { name: "", time: 0 }; // the last deliberate change
let width = 0; // of the charts, in pixels
let due = null; // the address of what is shown, where it is not written yet
let resting = 0; // the timer that writes it
let step = false; // whether the next address is a new one to go back from

async function ask(name, values) {
  const answer = await fetch(`api/${name}?${new URLSearchParams(values)}`).catch(() => {
    throw Object.assign(new Error("the program behind this page has ended: start sparsedial dial again"), { fields: [] });
  });
  const text = await answer.text();
  if (answer.ok) return JSON.parse(text);
  const body = answer.status === 422 ? JSON.parse(text) : { error: text, fields: [] };
  const message = inWords([body.error, body.hint].filter(Boolean).join(": "));
  throw Object.assign(new Error(message), { fields: body.fields, asked: answer.status === 422 });
}

// Asks what the form holds, and shows the answer or what is wrong.
async function refresh(more = null) {
  const number = ++asked;
  const values = state();
  try {
    const [answer, other] = await Promise.all([ask("dial", values), besides(values)]);
    if (number !== asked) return;
    shown = answer;
    second = other?.positions && !answer.no_choice_reason ? other : null;
    stale = "";
    document.body.classList.remove("stale");
    mark(other instanceof Error ? { message: other.message, fields: ["beside"] } : more);
    settle();
    tell();
    turn();
    race(values, number);
  } catch (problem) {
    if (number !== asked) return;
    if (!("fields" in problem)) throw problem;
    fail(problem);
  }
}

// The answer of the second law, or why it has none.
async function besides(values) {
  if (!values.beside) return null;
  if (values.beside === field("law").value) return new Error("this is the law itself: choose another");
  const answer = await ask("dial", { ...values, law: values.beside }).catch((problem) => problem);
  return answer.no_choice_reason ? new Error(`there is nothing to lay over the first law: ${answer.no_choice_reason}`) : answer;
}

// The dial stands where it stood, or where a link asks for; else at the best.
function settle() {
  const rows = shown.positions;
  const found = rows.findIndex((row) => at !== null && at !== "" && row.sparsity === Number(at));
  if (found < 0 && typeof at === "string") by("linked").textContent += ` The link asks for sparsity ${at}, which this dial does not have: it stands at the best.`;
  by("dial").max = rows.length - 1;
  by("dial").value = found < 0 ? shown.best : found;
  by("dial").disabled = rows.length < 2;
  by("ticks").replaceChildren(...rows.map((_, index) => new Option("", index)));
}

function fail(problem) {
  stale = problem.message;
  document.body.classList.add("stale");
  mark(problem);
  const where = problem.fields.length === 1 && fieldOf(problem.fields[0]) ? `${label(problem.fields[0])}: ` : "";
  by("finding").textContent = `This question has no answer: ${where}${problem.message}.`;
  by("finding").className = "wrong";
  by("more").replaceChildren();
  by("dial").disabled = true;
  by("command").textContent = NO_COMMAND;
  remember();
}

// The finding, and all that does not move with the dial.
function tell() {
  by("finding").textContent = shown.words;
  by("finding").className = "";
  by("more").replaceChildren(...shown.more.map((text) => make("li", { textContent: text })));
  by("gap-label").textContent = shown.gap_label;
  by("densest").textContent = shown.positions.length > 1 ? shown.positions[0].words.short : "";
  by("sparsest").textContent = shown.positions.at(-1).words.sparsity;
  by("alone").textContent = spec() ? "" : "The dial has one position here, so there is no chart along it.";
  const what = shown.budget.value === null ? "Cost of this loss at every position of the dial" : "Loss at every position of the dial, for this budget";
  by("along-title").textContent = second ? "Two laws along the dial: how far each position lies from that law's best" : what;
  by("along").hidden = !spec();
  by("table").tBodies[0].replaceChildren(...shown.positions.map(({ words }) => {
    const line = make("tr");
    for (const text of [words.sparsity, words.loss.text, words.parameters.text, words.active.text, words.tokens.text, words.time.text]) line.insertCell().textContent = text;
    return line;
  }));
  summaries();
  settings();
}

// Everything that moves with the dial.
function turn() {
  const position = Number(by("dial").value);
  const row = shown.positions[position];
  const words = row.words;
  at = row.sparsity;
  by("sparsity").textContent = words.sparsity;
  by("dial").setAttribute("aria-valuetext", `${words.sparsity}, loss ${words.loss.text}`);
  for (const name of TILES) by(name).replaceChildren(words[name].text, make("small", { textContent: words[name].more }));
  by("shape").textContent = words.shape;
  const item = (name) => (text) => make("li", { textContent: `${name}: ${text}.`.replace("..", ".") });
  by("minds").replaceChildren(...row.marks.filter((text) => text !== shown.no_choice_reason).map(item("Note")));
  by("notes").replaceChildren(...row.warnings.map(item("Note")));
  by("command").replaceChildren(...unbroken([shown, second].filter(Boolean).map((answer) => command(answer, row.sparsity)).join("\n")));
  for (const [index, line] of [...by("table").tBodies[0].rows].entries()) line.toggleAttribute("aria-current", index === position);
  remember(REST);
  along();
}

// What one types for a law's position; a second law need not have it.
function command(answer, sparsity) {
  const has = answer.positions.some((row) => row.sparsity === sparsity);
  return has ? answer.command.replace("SPARSITY", String(sparsity)) : `# ${answer.law} has no such position`;
}

// A command's words with hyphens, unless very long, do not break at line ends.
function unbroken(text) {
  return text.split(/(\S*-\S*)/).map((part, index) => {
    if (index % 2 === 0 || part.length > 30) return part;
    const word = document.createElement("span");
    word.className = "whole";
    word.textContent = part;
    return word;
  });
}

// The address holds the question that is shown; a deliberate change can be gone back from.
function remember(rest = 0) {
  due = `?${new URLSearchParams({ ...state(), ...(at === null ? {} : { position: at }) })}`;
  clearTimeout(resting);
  if (rest) resting = setTimeout(write, rest);
  else write();
}

function write() {
  clearTimeout(resting);
  if (due !== null && due !== location.search) history[step ? "pushState" : "replaceState"](null, "", due);
  due = null;
  step = false;
}

function deliberate(name, chosen = false) {
  if (name !== last.name) write();
  step ||= chosen || name !== last.name || performance.now() - last.time > PAUSE;
  last = { name, time: performance.now() };
  by("linked").textContent = "";
  by("message").textContent = "";
}

// The chart along the dial; null where there is one position.
function spec() {
  const answers = [shown, second].filter(Boolean);
  const rows = new Map(answers.flatMap((answer) => answer.positions.map((row) => [row.sparsity, row.words.short])));
  const places = [...rows.keys()].sort((one, other) => one - other);
  if (places.length < 2) return null;
  const line = (answer, index) => ({
    name: second ? answer.law : "",
    points: answer.positions.map((row, place) => [places.indexOf(row.sparsity), (second ? answer.chart.beyond : answer.chart.values)[place]]),
    low: second ? [] : answer.chart.low,
    high: second ? [] : answer.chart.high,
    colour: colour(index ? "second" : "sparse"),
    dash: index ? "7 4" : "none",
    dots: true,
  });
  const lines = answers.map(line);
  const position = lines[0].points[Number(by("dial").value)];
  const dense = shown.dense === null || second ? null : shown.chart.values[shown.dense];
  return {
    x: { names: places.map((place) => rows.get(place)) },
    xLabel: "sparsity, 1 − top_k/experts",
    yLabel: second ? shown.chart.beyond_axis : shown.chart.axis,
    log: shown.chart.log && !second,
    lines,
    level: dense === null ? null : { value: dense, text: "best dense model", colour: colour("dense") },
    here: position && [...position, colour("sparse")],
  };
}

const along = () => place("by-sparsity", spec(), width);

async function race(values, number) {
  await new Promise((done) => setTimeout(done, LULL));
  if (number !== asked) return;
  const laws = second ? [values, { ...values, law: values.beside }] : [values];
  let answers = [], words;
  try {
    answers = await Promise.all(laws.map((asking) => ask("crossover", asking)));
    words = answers.map((answer, index) => (second ? `${[shown, second][index].law}: ${answer.words}` : answer.words)).join(" ");
  } catch (problem) {
    words = `No crossover: ${problem.message}.`;
  }
  if (number !== asked) return;
  races = answers;
  by("crossing").textContent = words;
  by("by-budget").setAttribute("aria-label", words);
  budgets();
}

// The chart against the budget: both families of one law, or the lead of sparse by each of two.
function budgets() {
  const known = races.map((answer, index) => ({ answer, index })).filter(({ answer }) => answer.budgets.length > 1);
  if (!known.length) return place("by-budget", null, width);
  const { answer } = known[0];
  const line = ({ answer: from }, name, values, shade, dash = "none") => ({ name, points: from.budgets.map((budget, place) => [budget, values[place]]), colour: colour(shade), dash });
  const both = [line(known[0], "dense", answer.dense_loss, "dense"), line(known[0], "sparse", answer.sparse_loss, "sparse")];
  const leads = known.map((one) => line(one, [shown, second][one.index]?.law, one.answer.gap, one.index ? "second" : "sparse", one.index ? "7 4" : "none"));
  by("by-budget-title").textContent = second ? "Lead of sparse over dense, by each law, against the budget" : "Best loss of each family against the budget";
  place("by-budget", {
    x: { ticks: answer.ticks },
    xLabel: answer.axis,
    yLabel: second ? "lead of sparse, nats (above 0 sparse is better)" : "loss, nats per token",
    lines: second ? leads : both,
    level: second ? { value: 0, text: "", colour: colour("muted") } : null,
    upright: second ? null : answer.crossover?.value,
  }, width);
}

// The measured settings of the checkpoint that the page was opened for: a table that stays as it is.
function explainSettings() {
  const held = start.settings;
  by("settings").hidden = by("own").hidden = !held;
  if (!held) return;
  by("settings-table").tHead.rows[0].replaceChildren(...held.heads.map((text) => make("th", { scope: "col", textContent: text })));
  by("settings-table").tBodies[0].replaceChildren(...held.rows.map((row) => make("tr", {}, ...row.map((text) => make("td", { textContent: text })))));
  by("settings-note").textContent = held.note;
}

// Their chart: loss against active parameters, with the law's positions where they are losses too.
function settings() {
  const held = start.settings;
  if (!held) return;
  const asLoss = shown.chart.log ? [] : shown.positions.map((row, index) => [row.active_parameters, shown.chart.values[index]]);
  const ours = held.points.map((point) => [point.active_parameters, point.loss]);
  const own = ours.map(([size]) => size), ends = [Math.min(...own) / FAR, Math.max(...own) * FAR];
  const near = asLoss.some(([size]) => size >= ends[0] && size <= ends[1]);
  const law = near ? asLoss.sort((one, other) => one[0] - other[0]) : [];
  by("settings-note").textContent = held.note + (near || !asLoss.length ? "" : " The models of this budget are over ten times as large or as small, and not drawn.");
  const sizes = [...law, ...ours].map(([size]) => size);
  const inside = (tick) => tick.value >= Math.min(...sizes) && tick.value <= Math.max(...sizes);
  by("by-setting").setAttribute("aria-label", held.rows.map((row) => row.join(", ")).join("; "));
  place("by-setting", ours.length ? {
    x: { ticks: held.ticks.filter(inside) },
    xLabel: "active parameters per token",
    yLabel: "loss, nats per token",
    lines: [
      { name: "this checkpoint at its settings, measured", points: ours, labels: held.points.map((point) => point.name), colour: colour("second"), dots: true },
      ...(law.length ? [{ name: `models of this budget, predicted by ${shown.law}`, points: law, colour: colour("sparse"), dash: "7 4" }] : []),
    ],
  } : null, width);
}

const say = (text) => { by("message").textContent = text; };

function save(name, blob) {
  const link = make("a", { href: URL.createObjectURL(blob), download: name });
  link.click();
  URL.revokeObjectURL(link.href);
  say(`${name} saved`);
}

async function copy(text, what) {
  await navigator.clipboard.writeText(text).then(() => say(`${what} copied`), () => say(`${what} could not be copied; select it by hand`));
}

// A button that needs an answer, and says why it does nothing without one.
const button = (id, act) => by(id).addEventListener("click", async () => {
  if (!shown || stale) return say(`Not now: ${stale || "the answer is not there yet"}.`);
  await act().catch((problem) => say(`Not done: ${problem.message}.`));
});

button("to-best", async () => {
  if (Number(by("dial").value) === shown.best) return say("The dial stands at the best already.");
  deliberate("to-best", true);
  by("dial").value = shown.best;
  turn();
});
button("copy-command", () => copy(by("command").textContent, "Command"));
button("save-csv", async () => save("sparsedial.csv", new Blob([shown.csv], { type: "text/csv" })));
button("save-plan", async () => save("plan.json", new Blob([JSON.stringify(await ask("plan", { ...state(), sparsity: at }), null, 1)], { type: "application/json" })));
button("save-png", async () => {
  if (!spec()) return say("No picture: the dial has one position here.");
  save("sparsedial.png", await picture({ ...spec(), title: shown.words, subtitle: shown.caption + (second ? `; beside it: ${second.law}` : "") }));
});
by("copy-link").addEventListener("click", () => { write(); copy(location.href, "Link"); });
by("dial").addEventListener("input", () => { deliberate("dial"); turn(); });
form.addEventListener("submit", (event) => event.preventDefault());
form.addEventListener("input", (event) => {
  deliberate(event.target.name, event.target.tagName === "SELECT");
  if (event.target === field("currency")) {
    const problem = convert(stale ? null : shown?.positions[by("dial").value], shown?.unknown_amounts);
    if (problem) return mark(problem);
  }
  refresh();
});

const redraw = () => { if (shown) { along(); budgets(); settings(); } };
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { palette = {}; redraw(); });
new ResizeObserver(([{ contentRect }]) => {
  if (Math.abs(contentRect.width - width) > 1) requestAnimationFrame(redraw);
  width = contentRect.width;
}).observe(by("result"));

// Shows the question of the address.
function arrive() {
  clearTimeout(resting);
  due = null;
  const query = new URLSearchParams(location.search), values = Object.fromEntries(query);
  const twice = [...new Set([...query.keys()].filter((name) => query.getAll(name).length > 1))];
  by("linked").textContent = twice.length ? `The link gives ${twice.join(", ")} more than once: the last counts.` : "";
  const begun = CURRENCIES.some((name) => name in values) ? values : { ...start.state, ...values };
  at = begun.position ?? null;
  fill(begun);
  return refresh();
}

window.addEventListener("popstate", arrive);
(async () => {
  explain();
  for (const input of form.querySelectorAll("input")) input.maxLength = 200;
  if (matchMedia(NARROW).matches) for (const group of form.querySelectorAll(".group")) group.open = false;
  start = await ask("start", {});
  options(field("law"), start.laws);
  options(field("beside"), start.laws, start.laws.length > 1 ? "none" : "none: a study's law stands alone");
  explainSettings();
  options(field("device"), start.devices, start.study ? "this machine" : "none");
  await arrive();
})();
