// Requests to the viewer's own server; an answer that says no becomes an error with its words.

class Refusal extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

export const slidePath = (id, rest = "") => `api/slides/${encodeURIComponent(id)}${rest}`;

async function answer(path, options) {
  let response;
  try {
    response = await fetch(path, options);
  } catch {
    throw new Refusal(0, "the viewer does not answer: is he2her2 view still running?");
  }
  if (response.ok) return response;
  let message = response.statusText;
  try {
    message = (await response.json()).message ?? message;
  } catch { /* no JSON: the status has to do */ }
  throw new Refusal(response.status, message);
}

export const getJson = async (path) => (await answer(path)).json();
export const getFloats = async (path) => new Float32Array(await (await answer(path)).arrayBuffer());
// `keepalive`: also when the page is left; for a few KB only.
export const putJson = async (path, value, keepalive = false) =>
  (await answer(path, { method: "PUT", headers: { "content-type": "application/json" }, body: JSON.stringify(value), keepalive })).json();
