// One answer of the model: what it is, and how it is drawn.
import { make } from "./chat_dom.js";
import { rate } from "./chat_compare.js";
import { activeParameters, joules, plural, seconds, withUnit } from "./chat_words.js";

const LONG = 1000; // milliseconds before the first token, from which on they are said

const unwritten = () => ({ text: "", state: "writing", reason: null, usage: null, problem: null, asked: performance.now(), first: 0, last: 0 });

// An answer that is about to be written. `given` is the text that it continues, empty in a chat.
export function makeAnswer(setting, given) {
  const parts = {
    head: make("h2", { textContent: setting.dial.name }),
    given: make("span", { className: "same", textContent: given }),
    same: make("span", { className: "same" }),
    own: make("span", { className: "own" }),
    problem: make("p", { className: "problem", hidden: true }),
    bars: make("div", { className: "measured", hidden: true }),
    spent: make("ul", { className: "spent" }),
    goOn: make("p", { className: "go-on", hidden: true }),
  };
  const text = make("p", { className: "text" }, parts.given, parts.same, parts.own);
  const element = make("article", { className: "answer", ariaLabel: `Answer at ${setting.dial.name}` }, parts.head, text, parts.problem, parts.bars, parts.spent, parts.goOn);
  return { ...unwritten(), setting, element, parts };
}

// Begins an answer, or one that failed again.
export const begin = (answer) => Object.assign(answer, unwritten());

// A part of the stream reached the answer.
export function receive(answer, { text, reason, usage }) {
  if (text) {
    answer.text += text;
    answer.last = performance.now();
    answer.first ||= answer.last;
  }
  answer.reason = reason ?? answer.reason;
  answer.usage = usage ?? answer.usage;
}

// The text, of which the first `same` characters are those of all answers beside it.
export function drawText({ text, parts }, same) {
  parts.same.textContent = text.slice(0, same);
  parts.own.textContent = text.slice(same);
}

// All else of an answer; `again` asks for a failed one again.
export function drawState(answer, again) {
  const { element, parts, state, problem } = answer;
  element.classList.toggle("writing", state === "writing");
  element.ariaBusy = String(state === "writing");
  parts.problem.hidden = state !== "failed";
  if (state === "failed") {
    const button = make("button", { type: "button", textContent: "Try again" });
    button.addEventListener("click", again);
    parts.problem.replaceChildren(make("span", { textContent: problem.message }), " ", button);
  }
  parts.spent.replaceChildren(...(state === "writing" || state === "failed" ? [] : spent(answer)));
}

// What it took: the parts that bars show too, beside another answer, are marked.
function spent({ setting, usage, state, reason, asked, first, last }) {
  const took = usage?.dial, pace = rate({ usage, first, last });
  const energy = took?.joules == null ? "" : joules(took.joules) + (took.joules_basis === "estimated" ? " (estimated)" : "");
  const items = [
    ["barred", setting.dial.name],
    ["barred", activeParameters(took?.active_parameters_per_token ?? setting.dial.active_parameters)],
    ["", usage && plural(usage.completion_tokens, "token") + (took ? ` in ${seconds(took.seconds)}` : "")],
    ["", first - asked > LONG && `began after ${seconds((first - asked) / 1000)}`],
    ["barred", pace && `written at ${withUnit(pace, "tokens/s")}`],
    ["", energy],
    ["", took?.cached_prompt_tokens && `${took.cached_prompt_tokens} of ${plural(usage.prompt_tokens, "prompt token")} not read again`],
    ["", state === "stopped" && "stopped"],
    ["", reason === "length" && usage && `cut off at ${plural(usage.completion_tokens, "token")}`],
  ];
  return items.filter(([, text]) => text).map(([className, textContent]) => make("li", { className, textContent }));
}
