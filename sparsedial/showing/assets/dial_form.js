// The fields of the page: what they hold, what is wrong with them, and what their words mean.
"use strict";

const CURRENCIES = ["flops", "seconds", "gpu_hours", "joules", "dollars", "target_loss"];
const OWN = ["position", "beside"]; // of the page, not settings of a plan
const NARROW = "(max-width: 52rem)";
const by = (id) => document.getElementById(id);
const form = by("question");
const field = (name) => form.elements.namedItem(name);
const make = (tag, values = {}, ...children) => {
  const made = Object.assign(document.createElement(tag), values);
  made.append(...children);
  return made;
};
let start = null; // laws, devices and the first state
let currency = "flops"; // that the amount is counted in

// The question as the address holds it.
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

// Shows a question whole: a value that no list has, or a setting that has no field, gets one of its own.
function fill(values) {
  by("extras").replaceChildren(by("extras").firstElementChild);
  currency = CURRENCIES.find((name) => name in values) ?? "flops";
  const wanted = { law: start.law, ...values, currency, amount: values[currency] ?? "" };
  for (const element of form.elements) if (element.name) choose(element, wanted[element.name] ?? "");
  for (const name of Object.keys(values)) {
    if (name === currency || name === "position" || field(name)) continue;
    const words = CURRENCIES.includes(name) ? field("currency").options[CURRENCIES.indexOf(name)].text : name.replaceAll("_", " ");
    by("extras").append(make("div", {}, make("label", { htmlFor: `f-${name}`, textContent: words }), make("input", { id: `f-${name}`, name, value: values[name] })));
  }
  by("extras").hidden = by("extras").children.length < 2;
  summaries();
}

function choose(element, value) {
  if (element.tagName === "SELECT" && ![...element.options].some((option) => option.value === value)) element.add(new Option(`${value} (from the link)`, value));
  element.value = value;
}

function options(select, choices, empty) {
  select.replaceChildren(...(empty ? [new Option(empty, "")] : []), ...choices.map((choice) => new Option(choice.words, choice.name)));
}

// What a folded group holds stands in its summary.
function summaries() {
  for (const group of form.querySelectorAll(".group")) {
    const held = [...group.querySelectorAll("input, select")].filter((element) => element.value).map((element) => element.value);
    const summary = group.querySelector("summary");
    summary.querySelector("span")?.remove();
    if (held.length) summary.append(make("span", { textContent: held.join(" · ") }));
  }
}

const fieldOf = (name) => (name === currency || CURRENCIES.includes(name) ? field(name) ?? field("amount") : field(name));

// A name of a setting as the page calls it.
function label(name) {
  const found = fieldOf(name);
  const words = found ? form.querySelector(`label[for="${found.id}"]`).textContent : name.replaceAll("_", " ");
  return found === field("amount") ? `${words} (${field("currency").selectedOptions[0].text})` : words;
}

const inWords = (text) => text.replace(/<([a-z_.]+)>/g, (_, name) => `“${label(name)}”`);

// Marks the fields at fault, and says what is wrong beside the first of them.
function mark(problem) {
  for (const old of form.querySelectorAll(".problem")) old.remove();
  for (const element of form.querySelectorAll("[aria-invalid]")) {
    element.removeAttribute("aria-invalid");
    element.removeAttribute("aria-describedby");
  }
  if (!problem) return;
  const named = problem.fields.map(fieldOf).filter(Boolean);
  const faulty = named.length || !problem.asked ? named : [field("amount")];
  for (const element of new Set(faulty)) {
    element.setAttribute("aria-invalid", "true");
    element.setAttribute("aria-describedby", "problem");
    element.closest("details")?.setAttribute("open", "");
  }
  faulty[0]?.after(make("p", { id: "problem", className: "problem", textContent: problem.message }));
}

// The amount in another currency, from the position that is shown; where it is not known, the currency stays. Without an
// answer there is nothing to convert: what was typed may be an amount of the new currency.
function convert(row, unknown) {
  const wanted = field("currency").value;
  const amount = row?.words.amounts[wanted];
  if (!row || amount !== undefined) {
    currency = wanted;
    field("amount").value = amount ?? field("amount").value;
    return null;
  }
  const words = field("currency").selectedOptions[0].text;
  field("currency").value = currency;
  return { message: `The amount in ${words} is not known: ${inWords(unknown[wanted])}.`, fields: ["currency"] };
}

// A button beside every term that the glossary has; a tap shows its text below.
function explain() {
  for (const element of document.querySelectorAll("[data-word]")) {
    const name = element.textContent.trim();
    const text = document.querySelector(`[data-of="${element.dataset.word}"]`).textContent;
    const button = make("button", { type: "button", className: "why", textContent: "?", ariaLabel: `What is “${name}”?`, ariaExpanded: "false" });
    const tip = make("p", { className: "tip", textContent: text, hidden: true });
    tip.setAttribute("role", "status");
    const show = (open) => { tip.hidden = !open; button.ariaExpanded = String(open); };
    button.addEventListener("click", () => show(tip.hidden));
    button.addEventListener("keydown", (event) => { if (event.key === "Escape") show(false); });
    if (element.tagName === "LABEL") element.after(button, tip);
    else element.append(button, tip);
  }
}
