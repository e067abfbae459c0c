// Answers to one message beside each other: where their texts part, and how their speed and energy differ.
import { make } from "./chat_dom.js";
import { count, joules, plural, withUnit } from "./chat_words.js";

const FEWEST = 8; // tokens: the speed of a shorter answer says nothing
const SHORTEST = 50; // milliseconds: parts that come closer together were held back on their way
const ALIKE = 0.03; // speeds and energies that differ by less are called the same

// How many characters all texts begin with, up to the end of a word.
export function shared(texts) {
  const [first, ...others] = texts;
  let end = 0;
  while (end < first.length && others.every((text) => text[end] === first[end])) end++;
  if (texts.some((text) => end === text.length)) return end;
  return first.slice(0, end).search(/\S*$/);
}

// Tokens a second while it wrote: from its first token to its last, without the reading of the prompt.
export function rate({ usage, first, last }) {
  const tokens = usage?.completion_tokens ?? 0;
  return tokens >= FEWEST && last - first >= SHORTEST ? (tokens - 1) / ((last - first) / 1000) : null;
}

export function joulesPerToken({ usage }) {
  const spent = usage?.dial?.joules ?? null;
  return spent === null || !usage.completion_tokens ? null : spent / usage.completion_tokens;
}

// How a rate compares, with the word that leads to the other one: `15 % faster than`, `2.4 times as fast as`.
function compared(now, before, [more, less, alike]) {
  if (!now || !before) return null;
  const ratio = now / before;
  if (Math.abs(ratio - 1) < ALIKE) return `${alike} as`;
  if (ratio >= 2) return `${withUnit(ratio, "times", 2)} ${alike} as`;
  return `${withUnit(Math.round(100 * Math.abs(ratio - 1)), "%")} ${ratio > 1 ? more : less} than`;
}

// Whether an answer is long enough for its energy to say something: of a short one most is the reading of its prompt.
function telling({ usage }) {
  return (usage?.completion_tokens ?? 0) >= FEWEST && (usage.dial?.seconds ?? 0) * 1000 >= SHORTEST;
}

// What an answer at another setting won and lost beside the first one; empty where neither is known.
export function difference(first, other) {
  const speed = compared(rate(other), rate(first), ["faster", "slower", "as fast"]);
  const energy = telling(first) && telling(other) && compared(joulesPerToken(other), joulesPerToken(first), ["more energy a token", "less energy a token", "as much energy a token"]);
  const basis = other.usage?.dial?.joules_basis === "estimated" ? " (estimated)" : "";
  const name = first.setting.dial.name;
  const costs = [
    speed && `wrote ${speed} ${name}`,
    energy && `used ${speed ? energy.replace(/ (than|as)$/, "") : `${energy} ${name}`}${basis}`,
  ].filter(Boolean).join(" and ");
  return costs && `Here ${other.setting.dial.name} ${costs}.`;
}

// How far the texts are the same, and whose prompt was in memory.
export function remarks(answers) {
  const [first, ...others] = answers;
  return [alike(answers.map((answer) => answer.text)), ...others.map((other) => cached(first, other))].filter(Boolean).join(" ");
}

function alike(texts) {
  if (texts.every((text) => text === texts[0])) return "The texts are the same.";
  const words = texts[0].slice(0, shared(texts)).match(/\S+/g)?.length ?? 0;
  return words ? `The first ${words === 1 ? "word is" : `${words} words are`} the same (grey).` : "The texts differ from the first word on.";
}

// An answer whose prompt is in memory already needs less time and energy; of one that was stopped that is not known.
function cached(first, other) {
  const [before, now] = [first, other].map((answer) => answer.usage?.dial?.cached_prompt_tokens);
  if (before === now || before === undefined || now === undefined) return "";
  const reader = before > now ? other : first;
  return `${reader.setting.dial.name} had to read ${plural(Math.abs(before - now), "token")} of the prompt more.`;
}

const MEASURES = [
  ["active", (answer) => answer.setting.dial.active_parameters, (value) => `${count(value)} parameters`],
  ["speed", rate, (value) => withUnit(value, "tokens/s")],
  ["energy", joulesPerToken, (value) => `${joules(value)}/token`],
];

// The bars of one answer, drawn to the scale of all answers.
export function bars(answer, answers) {
  const rows = MEASURES.flatMap(([name, of, words]) => {
    const value = of(answer), most = Math.max(...answers.map((one) => of(one) ?? 0));
    const bar = make("span", { className: "bar" }, make("span"));
    bar.firstChild.style.width = `${value === null ? 0 : (100 * value) / most}%`;
    return [make("dt", { textContent: name }), make("dd", {}, bar, make("span", { textContent: value === null ? "–" : words(value) }))];
  });
  return make("dl", { className: "bars" }, ...rows);
}
