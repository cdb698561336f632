// Questions to the service, and its answers as they come.

export class Problem extends Error {}

export async function get(path) {
  const response = await reach(path);
  return response.json();
}

// Calls `tell(name, data)` for every event; ends with the stream.
export async function stream(path, form, tell, signal) {
  const response = await reach(path, { method: "POST", body: form, signal });
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const events = (rest + value).split("\n\n");
    rest = events.pop();
    for (const event of events) {
      const name = /^event: (.*)$/m.exec(event);
      const data = /^data: (.*)$/m.exec(event);
      if (name && data) tell(name[1], JSON.parse(data[1]));
    }
  }
}

export async function post(path) {
  await reach(path, { method: "POST" });
}

async function reach(path, options = {}) {
  let response;
  try {
    response = await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem("The service cannot be reached. Is it still running?");
  }
  if (response.ok) return response;
  const { detail } = await response.json().catch(() => ({}));
  throw new Problem(inPlainWords(response.status, detail));
}

function inPlainWords(status, detail) {
  if (status === 429) return `Too many people are asking at the moment: ${detail}.`;
  if (status === 413) return "This file is too large.";
  if (status === 503) return "The service is starting or ending. Try again in a moment.";
  if (status === 500) return "The service failed on this. Its operator finds out more in its log.";
  return `This cannot be done: ${detail ?? `the service says ${status}`}.`;
}
