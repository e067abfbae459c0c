// One message and the answers to it, beside each other where there are several.
import { drawState, drawText, makeAnswer } from "./chat_answer.js";
import { bars, difference, remarks, shared } from "./chat_compare.js";
import { make } from "./chat_dom.js";

// A message that is about to be asked; `plain`: it is not a chat, so the answer continues its text. `act` has `ask` (for
// an answer at the dial's setting, or for a given answer again) and `changed` (when another answer is gone on from).
export function makeTurn(message, plain, act) {
  const parts = {
    message: make("p", { className: "message", textContent: message, hidden: plain }),
    found: make("p", { className: "found", hidden: true }),
    answers: make("div", { className: "answers" }),
    ask: make("button", { type: "button", className: "ask-again", hidden: true }),
  };
  const element = make("section", { className: "turn", ariaLabel: `Message: ${message}` }, parts.message, parts.answers, parts.found, parts.ask);
  const turn = { message, plain, seed: Math.floor(Math.random() * 2 ** 31), answers: [], picked: null, act, element, parts };
  parts.ask.addEventListener("click", () => act.ask(turn));
  return turn;
}

export function addAnswer(turn, setting) {
  const answer = makeAnswer(setting, turn.plain ? turn.message : "");
  turn.answers.push(answer);
  turn.parts.answers.append(answer.element);
  turn.picked = null;
  return answer;
}

export function dropAnswer(turn, answer) {
  turn.answers.splice(turn.answers.indexOf(answer), 1);
  answer.element.remove();
}

// The answer that a chat goes on from.
export const chosen = ({ answers, picked }) => picked ?? answers.findLast((answer) => answer.text) ?? null;

// Draws the texts, which grow: where several begin alike, that is grey.
export function drawTexts({ answers }) {
  const known = answers.filter((answer) => answer.text);
  const same = known.length > 1 ? shared(known.map((answer) => answer.text)) : 0;
  for (const answer of answers) drawText(answer, same);
}

// Draws everything else; `last`: whether the turn is the newest, `at`: where the dial stands, `busy`: whether the model writes.
export function drawTurn(turn, { last, at, busy }) {
  const { answers, parts, plain } = turn;
  parts.message.hidden = plain;
  for (const answer of answers) drawState(answer, () => turn.act.ask(turn, answer));
  drawTexts(turn);
  const ended = answers.filter((answer) => answer.text && answer.state !== "writing");
  turn.element.classList.toggle("compared", answers.length > 1);
  for (const answer of answers) {
    const compared = ended.length > 1 && ended.includes(answer);
    answer.parts.bars.hidden = !compared;
    answer.parts.bars.replaceChildren(...(compared ? [bars(answer, ended)] : []));
    drawGoOn(turn, answer, last && !plain && !busy && ended.length > 1 && ended.includes(answer));
  }
  parts.found.hidden = ended.length < 2 || busy && last;
  if (!parts.found.hidden) {
    const costs = ended.slice(1).map((answer) => difference(ended[0], answer)).filter(Boolean);
    parts.found.replaceChildren(...costs.map((text) => make("b", { textContent: text })), make("span", { textContent: remarks(ended) }));
  }
  drawAsk(turn, { last, at, busy });
}

function drawGoOn(turn, answer, offered) {
  const { goOn } = answer.parts;
  goOn.hidden = !offered;
  if (!offered) return;
  if (chosen(turn) === answer) return goOn.replaceChildren("The chat goes on from this answer.");
  const button = make("button", { type: "button", textContent: "Go on from this answer" });
  button.addEventListener("click", () => { turn.picked = answer; turn.act.changed(); });
  goOn.replaceChildren(button);
}

// The offer to ask again, at the setting that the dial shows now.
function drawAsk({ answers, parts }, { last, at, busy }) {
  const there = answers.filter(({ text, state }) => text || state === "done");
  parts.ask.hidden = !last || busy || !(there.length || answers.some(({ state }) => state === "stopped"));
  const asked = there.some(({ setting, state }) => setting === at && state !== "failed");
  parts.ask.disabled = asked;
  parts.ask.textContent = asked ? "Turn the dial to ask this again at another setting" : `Ask again at ${at.dial.name}`;
}
