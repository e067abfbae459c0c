// Numbers and settings in words.

const NO_BREAK = "\u00a0";
const MINUS = "\u2212";
const SHOWN = 0.0005; // a difference of loss in nats that is less shows as none

const rounded = (value, digits = 3) => Number(value.toPrecision(digits));
const plain = (value, digits = 3) => rounded(value, digits).toLocaleString("en", { maximumFractionDigits: 10, useGrouping: value >= 1e4 });
export const withUnit = (value, unit, digits = 3) => `${plain(value, digits)}${NO_BREAK}${unit}`;

// Three significant digits with k, M, B or T, as the command line writes counts.
export function count(value) {
  const size = Math.abs(rounded(value));
  const [limit, letter] = [[1e12, "T"], [1e9, "B"], [1e6, "M"], [1e3, "k"]].find(([least]) => size >= least) ?? [1, ""];
  return plain(value / limit) + letter;
}

export function seconds(value) {
  if (rounded(value) < 1) return withUnit(value * 1e3, "ms");
  if (value < 100) return withUnit(value, "s");
  const whole = Math.round(value);
  return `${withUnit(Math.floor(whole / 60), "min", 6)}${NO_BREAK}${withUnit(whole % 60, "s")}`;
}

export function joules(value) {
  if (rounded(value) >= 1e3) return withUnit(value / 1e3, "kJ");
  return value >= 0.1 || value === 0 ? withUnit(value, "J") : withUnit(value * 1e3, "mJ");
}

export const percent = (share, digits = 2) => withUnit(share * 100, "%", digits);

const sign = (value) => (value < 0 ? MINUS : "+");
const signed = (value, words) => `${sign(value)}${words(Math.abs(value))}`;

// What a setting adds to the loss: in percent of the loss as trained where that is known, else in nats per token.
function added(value, { loss, loss_increase: { mean } }) {
  return loss ? signed(value / (loss - mean), percent) : signed(value, (size) => `${size.toFixed(3)}${NO_BREAK}nats`);
}

export function lossWords(entry) {
  const grown = entry.loss_increase;
  if (!grown) return "not measured";
  if (grown.mean === 0 && grown.low === null) return "as trained";
  return Math.abs(grown.mean) < SHOWN ? "no loss added" : `${added(grown.mean, entry)} loss`;
}

// The interval of the added loss, where there is one; where it was not measured, what measures it.
export function lossRange(entry) {
  if (!entry.loss_increase) return " The command “sparsedial dial” can measure its loss.";
  const { low, high } = entry.loss_increase;
  return low === null || high === null ? "" : ` 95${NO_BREAK}% interval of the loss: ${added(low, entry)} to ${added(high, entry)}.`;
}

export const activeParameters = (value) => `${count(value)} active parameters`;

// How many of the model's parameters a token uses at a setting.
export function activeWords({ active_parameters: active, sparsity }) {
  return `${count(active)} of ${count(active / (1 - sparsity.parameters))} parameters active`;
}

const list = (words) => (words.length < 2 ? words.join("") : `${words.slice(0, -1).join(", ")} and ${words.at(-1)}`);
const plural = (number, noun) => `${number} ${noun}${number === 1 ? "" : "s"}`;

// What a setting means, as a sentence.
export function settingWords({ top_k_experts: k, top_p_experts: p, neurons_share: neurons, skip_layers: skipped }) {
  const parts = [];
  if (Array.isArray(k)) parts.push(`visits ${Math.min(...k)} to ${plural(Math.max(...k), "expert")}, by layer`);
  else if (k) parts.push(`visits ${plural(k, "expert")} in each sparse layer`);
  if (p) parts.push(`keeps the experts that hold ${percent(p, 3)} of the weight`);
  if (neurons) parts.push(`uses ${percent(neurons, 3)} of the dense layers' neurons`);
  if (skipped.length) parts.push(`skips layer${skipped.length > 1 ? "s" : ""} ${list(skipped.map(String))}`);
  return `Each token ${list(parts) || "uses the whole model"}.`;
}

export { plural };
