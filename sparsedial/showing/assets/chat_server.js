// What the page asks of the server, by OpenAI's API with the dial: its settings, and answers as they are written.

const KEY = "sparsedial-api-key"; // where this tab keeps the key of a server that wants one

// What went wrong, in one line; `status` is the reply's, 0 without one.
export class Problem extends Error {
  constructor(message, status = 0, code = null) {
    super(message);
    this.status = status;
    this.code = code;
  }
}

export const keepKey = (key) => sessionStorage.setItem(KEY, key);
export const hasKey = () => sessionStorage.getItem(KEY) !== null;

function headers() {
  return hasKey() ? { Authorization: `Bearer ${sessionStorage.getItem(KEY)}` } : {};
}

async function reach(path, options = {}) {
  const reply = await fetch(path, { ...options, headers: { ...options.headers, ...headers() } }).catch((error) => {
    throw options.signal?.aborted ? error : new Problem("The server does not answer. Does it still run?");
  });
  if (reply.ok) return reply;
  const said = await reply.json().catch(() => ({}));
  throw new Problem(sentence(said.error?.message ?? `The server answered with status ${reply.status}`), reply.status, said.error?.code);
}

// A message of the server as one sentence; a field's name at its beginning stays as it is.
function sentence(text) {
  const line = text.trim().replace(/\s*\n\s*/g, ": ").replace(/^[a-z]+ /, (word) => word[0].toUpperCase() + word.slice(1));
  return /[.!?]$/.test(line) ? line : `${line}.`;
}

// The settings of the checkpoint, as entries of `/v1/models`; the first is its default.
export async function models() {
  return (await (await reach("v1/models")).json()).data;
}

// The parts of an answer as they come: its text, why it ended, what it took. Each is empty or null where a part lacks it.
export async function* written(path, body, signal) {
  const asked = JSON.stringify({ ...body, stream: true, stream_options: { include_usage: true } });
  const reply = await reach(path, { method: "POST", signal, headers: { "Content-Type": "application/json" }, body: asked });
  for await (const data of events(reply.body, signal)) {
    if (data === "[DONE]") return;
    const { error, choices: [choice] = [], usage = null } = JSON.parse(data);
    if (error) throw new Problem(sentence(error.message), reply.status, error.code);
    yield { text: choice?.delta?.content ?? choice?.text ?? "", reason: choice?.finish_reason ?? null, usage };
  }
  throw new Problem("The answer broke off: the server ended it early.");
}

// The data of server-sent events; other fields of theirs have no meaning here.
async function* events(body, signal) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let held = "";
  for (;;) {
    const { value, done } = await reader.read().catch((error) => {
      throw signal.aborted ? error : new Problem("The answer broke off: the server is gone.");
    });
    if (done) return;
    const lines = (held + value).split("\n");
    held = lines.pop();
    for (const line of lines) if (line.startsWith("data:")) yield line.slice("data:".length).trim();
  }
}
