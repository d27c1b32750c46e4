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
  for (const hit of [...(body.hits ?? []), ...(body.near ?? [])]) hit.query_id = body.query_id; // each card knows whose it is
  return body;
}

export const about = () => call("v1/about");

/** Categories with a picture each. */
export const start = () => call("v1/facets?top=12");

/** Counts of facets among all that matches a filter. */
export const counts = (facets, filter, signal) => post("v1/search", { filter, k: 1, fields: [], facets }, signal).then((answer) => answer.facets);

/** Items with a value of a column, as the filter finds them. */
export const browse = (filter, k) => post("v1/search", { filter, k });

const parameters = (values) =>
  new URLSearchParams(Object.entries(values).filter(([, value]) => value !== null && value !== undefined));

export const suggest = (q, signal) => call(`v1/suggest?${parameters({ q, k: 5 })}`, { signal });

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
