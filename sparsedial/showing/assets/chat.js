// The conversation: what was asked at which setting, and what the user may do next.
import { setting, showDial } from "./chat_dial.js";
import { by, make, refocus } from "./chat_dom.js";
import { begin, receive } from "./chat_answer.js";
import { Problem, hasKey, keepKey, models, written } from "./chat_server.js";
import { addAnswer, chosen, drawTexts, drawTurn, dropAnswer, makeTurn } from "./chat_turn.js";

const EXAMPLES = {
  chat: ["Why is the sky blue?", "Name three animals that can fly.", "Write two sentences about the sea."],
  text: ["Once upon a time there was", "The theory of", "Water boils when"],
};
const NEAR = 80; // pixels from the end of the conversation, within which it follows what is written
const NO_TEMPLATE = /chat.?template/i; // in the code or the message of an error, where a checkpoint cannot chat

let turns = [];
let model = ""; // the name by which the checkpoint is asked for
let plain = false; // whether the checkpoint has no chat template, so that it continues texts
let writing = null; // aborts the answer that is being written
let retry = null; // what is done again once the server has its key

const say = (text) => { by("said").textContent = text; };

function draw() {
  for (const turn of turns) drawTurn(turn, { last: turn === turns.at(-1), at: setting(), busy: writing !== null });
  by("welcome").hidden = turns.length > 0;
  by("new").hidden = turns.length === 0;
  by("send").hidden = writing !== null;
  by("stop").hidden = writing === null;
}

// Does something that makes the conversation longer, and follows its end unless the user looks at another place.
function following(act, always = false) {
  const talk = by("talk");
  const near = always || talk.scrollHeight - talk.scrollTop - talk.clientHeight < NEAR;
  act();
  if (near) talk.scrollTop = talk.scrollHeight;
}

// What the server is asked for a turn: the chat up to it, or its text.
function request(turn, at) {
  const body = {
    model, dial: { setting: at.dial.name }, seed: turn.seed,
    temperature: by("temperature").valueAsNumber, max_tokens: by("tokens").valueAsNumber,
  };
  if (turn.plain) return ["v1/completions", { ...body, prompt: turn.message }];
  const before = turns.slice(0, turns.indexOf(turn)).filter(chosen);
  const messages = before.flatMap((one) => [{ role: "user", content: one.message }, { role: "assistant", content: chosen(one).text }]);
  return ["v1/chat/completions", { ...body, messages: [...messages, { role: "user", content: turn.message }] }];
}

// Asks for an answer to a turn: a new one where the dial stands, or a failed one again.
async function ask(turn, answer = addAnswer(turn, setting())) {
  if (writing) return;
  const mine = writing = new AbortController();
  begin(answer);
  following(draw, true);
  refocus(by("stop"));
  say(`Writing an answer at ${answer.setting.dial.name}.`);
  try {
    for await (const part of written(...request(turn, answer.setting), mine.signal)) following(() => { receive(answer, part); drawTexts(turn); });
    answer.state = "done";
  } catch (problem) {
    if (!mine.signal.aborted && !(problem instanceof Problem)) throw problem;
    answer.state = mine.signal.aborted ? "stopped" : "failed";
    answer.problem = problem;
  } finally {
    if (writing === mine) writing = null;
    following(draw);
    refocus(by("message"));
  }
  if (turns.includes(turn)) end(turn, answer);
}

function end(turn, answer) {
  const { state, text, problem, setting: at } = answer;
  if (state !== "failed") return say(`Answer at ${at.dial.name}${state === "stopped" ? ", stopped" : ""}: ${text}`);
  if (problem.status === 400 && !turn.plain && NO_TEMPLATE.test(`${problem.code} ${problem.message}`)) return continueTexts(turn, answer);
  say(problem.message);
  if (problem.status === 401) askForKey(() => ask(turn, answer));
}

// The checkpoint cannot chat: its page is one of texts from now on, and the message is such a text.
function continueTexts(turn, answer) {
  setPlain(true);
  turn.plain = true;
  dropAnswer(turn, answer);
  return ask(turn, addAnswer(turn, answer.setting));
}

function setPlain(value) {
  plain = value;
  by("message").placeholder = plain ? "Begin a text to continue" : "Message";
  by("new").textContent = plain ? "New text" : "New chat";
  by("plain").hidden = !plain;
  by("examples").replaceChildren(...EXAMPLES[plain ? "text" : "chat"].map((text) => {
    const button = make("button", { type: "button", textContent: text });
    button.addEventListener("click", () => send(text));
    return button;
  }));
}

function send(message) {
  if (writing || !message.trim() || !setting() || !numbersFit()) return false;
  const turn = makeTurn(message, plain, { ask, changed: draw });
  turns.push(turn);
  by("turns").append(turn.element);
  ask(turn);
  return true;
}

// Whether temperature and tokens can be used; else the field at fault says what it takes.
function numbersFit() {
  const wrong = [by("temperature"), by("tokens")].find((field) => !field.checkValidity());
  if (!wrong) return true;
  by("more").open = true;
  wrong.reportValidity();
  return false;
}

// An answer has no more tokens than the checkpoint's context.
function bound(length) {
  by("tokens").max = length;
  by("tokens").value = Math.min(by("tokens").value, length);
  summary();
}

function summary() {
  by("chosen").textContent = `temperature ${by("temperature").value}, at most ${by("tokens").value} tokens`;
}

function fit() {
  by("message").style.height = "auto";
  by("message").style.height = `${by("message").scrollHeight + 2}px`;
}

function askForKey(then) {
  retry = then;
  by("key-says").textContent = hasKey() ? "The server does not accept this API key." : "This server wants an API key.";
  by("key").hidden = false;
  by("key-text").focus();
}

function forget() {
  writing?.abort();
  turns = [];
  by("turns").replaceChildren();
  draw();
  say(by("new").textContent);
  refocus(by("message"));
}

// The model's name without the setting, which an entry's may end with.
function bare({ id, dial: { name } }) {
  return id.endsWith(`:${name}`) ? id.slice(0, -name.length - 1) : id;
}

async function connect() {
  by("trouble").hidden = true;
  try {
    const entries = await models();
    model = bare(entries[0]);
    by("model").textContent = document.title = model;
    setPlain(entries[0].chat === false);
    bound(entries[0].max_model_len);
    showDial(entries, draw);
    by("welcome").hidden = by("compose").hidden = false;
    refocus(by("message"));
  } catch (problem) {
    if (!(problem instanceof Problem)) throw problem;
    if (problem.status === 401) return askForKey(connect);
    by("trouble").hidden = false;
    by("trouble-says").textContent = problem.message;
    by("trouble-again").focus();
  }
}

by("compose").addEventListener("submit", (event) => {
  event.preventDefault();
  if (!send(by("message").value)) return;
  by("message").value = "";
  fit();
});
by("message").addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  by("compose").requestSubmit();
});
document.addEventListener("keydown", (event) => { if (event.key === "Escape") writing?.abort(); });
by("message").addEventListener("input", fit);
by("stop").addEventListener("click", () => writing?.abort());
by("new").addEventListener("click", forget);
by("more").addEventListener("input", summary);
by("trouble-again").addEventListener("click", connect);
by("key").addEventListener("submit", (event) => {
  event.preventDefault();
  keepKey(by("key-text").value.trim());
  by("key").hidden = true;
  retry();
});
summary();
connect();
