// The dial: a stop for each setting, from the most active parameters to the fewest.
import { by, make } from "./chat_dom.js";
import { activeWords, lossRange, lossWords, settingWords } from "./chat_words.js";

let stops = []; // entries of the server's models, in the order of the dial

const inputs = () => [...by("stops").querySelectorAll("input")];

// The entry at which the dial stands.
export const setting = () => stops[inputs().findIndex((input) => input.checked)];

// Shows the settings; `turned` is called whenever the dial is turned.
export function showDial(found, turned) {
  stops = [...found].sort((one, other) => other.dial.active_parameters - one.dial.active_parameters);
  by("stops").replaceChildren(...stops.map(stop));
  const input = inputs()[stops.indexOf(found[0])];
  input.checked = true;
  by("dial").hidden = false;
  input.scrollIntoView({ block: "nearest" });
  by("stops").addEventListener("change", () => { tell(); turned(); });
  by("stops").addEventListener("pointermove", drag);
  tell();
  turned();
}

function stop(entry) {
  const bar = make("span", { className: "bar" }, make("span"));
  bar.firstChild.style.width = `${100 * (1 - entry.dial.sparsity.parameters)}%`;
  return make("label", { className: "stop" },
    make("input", { type: "radio", name: "setting" }),
    make("span", { className: "name", textContent: entry.dial.name }), " ",
    make("span", { className: "loss", textContent: lossWords(entry) }), " ",
    bar,
    make("span", { className: "active", textContent: activeWords(entry.dial) }));
}

// What the dial stands at: on a phone, where the stops have no room for it, all of it.
function tell() {
  const entry = setting();
  by("standing").replaceChildren(
    make("b", { textContent: entry.dial.name }),
    make("span", { textContent: lossWords(entry) }),
    make("span", { textContent: activeWords(entry.dial) }));
  by("meaning").textContent = settingWords(entry.dial) + lossRange(entry);
}

// Moving along the stops with a finger or a pressed button turns the dial.
function drag(event) {
  if (!event.buttons) return;
  const input = document.elementFromPoint(event.clientX, event.clientY)?.closest(".stop")?.querySelector("input");
  if (input && !input.checked) input.click();
}
