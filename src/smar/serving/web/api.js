// The service, seen from the page.

import { session } from "./events.js";

/** An answer that is not a success; `message` is fit to be shown. */
export class ServiceError extends Error {
  constructor(code, message) {
    super(message);
    this.code = code;
  }
}

async function call(path, options) {
  let response;
  try {
    response = await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ServiceError("unreachable", "The search service cannot be reached. Is it still running?");
  }
  const body = await response.json().catch((error) => {
    if (error.name === "AbortError") throw error;
    if (response.ok) throw new ServiceError("unreadable", "The service's answer broke off or is not its own.");
    return {};
  });
  if (!response.ok) {
    const { code = `http_${response.status}`, message = `The service answered ${response.status}.` } = body.error ?? {};
    throw new ServiceError(code, message);
  }
  for (const hit of body.hits ?? []) hit.query_id = body.query_id; // each card knows whose it is
  return body;
}

export const about = () => call("v1/about");

export const facets = (filter = null, top = 30, signal = null) =>
  call(`v1/facets?${parameters({ top, filter })}`, { signal });

/** Counts of some columns among all that matches a filter, as if nothing had been chosen of each. */
export const counts = (columns, filter, signal) =>
  post("v1/search", { filter, k: 1, fields: [], facets: { columns, of: "matches", top: 100 } }, signal).then((answer) => answer.facets);

const parameters = (values) =>
  new URLSearchParams(Object.entries(values).filter(([, value]) => value !== null && value !== undefined));

export const item = (id, signal) => call(`v1/items/${encodeURIComponent(id)}`, { signal });

export const similar = (id, wanted, signal) =>
  call(`v1/items/${encodeURIComponent(id)}/similar?${parameters(wanted)}`, { signal });

export const byPicture = (picture, wanted, signal) =>
  call(`v1/search/picture?${parameters(wanted)}`, {
    method: "POST",
    headers: { "Content-Type": picture.type || "application/octet-stream" },
    body: picture,
    signal,
  });

export const search = (request, signal) => post("v1/search", { ...request, session: session(), explain: true }, signal);

const post = (path, request, signal) =>
  call(path, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(request),
    signal,
  });
