// Requests to the service. A file is sent once; afterwards its id stands for it.

export class Refused extends Error {
  constructor(status, detail) {
    super(detail);
    this.status = status;
  }
}

async function ask(path, options) {
  let response;
  try {
    response = await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused(0, "the service does not answer");
  }
  if (response.ok) return response;
  const answer = await response.json().catch(() => ({}));
  throw new Refused(response.status, answer.detail ?? `the service answers ${response.status}`);
}

export async function getJson(path) {
  return (await ask(path)).json();
}

export async function getBlob(path, signal) {
  return (await ask(path, { signal })).blob();
}

// Fields are [name, value] pairs; `source` is the image with its `id`, or its `file`.
export async function post(path, fields, source, signal) {
  try {
    return await send(path, fields, source, signal);
  } catch (error) {
    const forgotten = error.status === 404 && source?.id && source.file;
    if (!forgotten) throw error;
    source.id = null;
    return send(path, fields, source, signal);
  }
}

async function send(path, fields, source, signal) {
  const form = new FormData();
  for (const [name, value] of fields) form.append(name, value);
  if (source?.id) form.append("image_id", source.id);
  else if (source) form.append("image", source.file, "image");
  const answer = await (await ask(path, { method: "POST", body: form, signal })).json();
  if (source) source.id = answer.image_id;
  return answer;
}
