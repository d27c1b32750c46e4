// The search page: state in the address bar, one request in flight, everything drawn from the answer.

import * as api from "./api.js";
import { watchDetail } from "./cards.js";
import { byId, el } from "./dom.js";
import { buildFilters, showFilters } from "./filters.js";
import { COMPARED, FIRST, MOST, clearFilters, empty, filterCount, fromAddress, toAddress, toFilter } from "./state.js";
import { showComparison, showFailure, showGate, showLoading, showNothing, showResults, showStart } from "./views.js";

const TYPING_PAUSE = 120; // ms: below it, a fast typist's words would be searched letter by letter

let state = fromAddress();
let facets = null;
let filterable = false;
let running = new AbortController();
let timer = 0;

/** Search after `pause` ms; a newer call replaces an older one, waiting or under way. */
function schedule(pause) {
  clearTimeout(timer);
  timer = setTimeout(run, pause);
}

async function run() {
  running.abort();
  const mine = (running = new AbortController());
  byId("filters").hidden = !state.q.trim() || !filterable;
  if (!state.q.trim()) return finish(() => showStart(facets, pick));
  showLoading();
  try {
    const draw = await (state.compare ? compare(mine.signal) : single(mine.signal));
    if (mine === running) finish(draw);
  } catch (error) {
    if (mine === running && error.name !== "AbortError") finish(() => showFailure(error, run));
  }
}

function finish(draw) {
  byId("view").removeAttribute("aria-busy");
  draw();
}

const request = (mode, k) => ({ query: state.q, mode, k, filter: toFilter(state) });

async function single(signal) {
  const { mode, k } = state;
  const answer = await api.search(request(mode, k), signal);
  const more = answer.hits.length === k && k < MOST ? () => ((state.k = Math.min(2 * k, MOST)), run()) : null;
  return () => {
    showGate(answer, mode);
    if (answer.hits.length) showResults(answer, k, more);
    else showNothing(answer.query, filterCount(state) > 0, clear);
  };
}

async function compare(signal) {
  const mode = state.mode === "text" ? "adaptive" : state.mode;
  const [words, pictures] = await Promise.all(
    ["text", mode].map((each) => api.search(request(each, COMPARED), signal)),
  );
  return () => {
    showGate(pictures, mode);
    if (pictures.hits.length) showComparison(words, pictures, COMPARED);
    else showNothing(pictures.query, filterCount(state) > 0, clear);
  };
}

/** The state changed: `step` makes it a step of its own in the browser's history. */
function changed(pause, step = pause === 0) {
  state.k = FIRST;
  const address = toAddress(state);
  if (address !== location.pathname + location.search) history[step ? "pushState" : "replaceState"](null, "", address);
  show();
  schedule(pause);
}

/** Controls, chips and title from the state; the results follow when they arrive. */
function show() {
  if (byId("query").value !== state.q) byId("query").value = state.q;
  for (const input of document.querySelectorAll("#modes input")) input.checked = input.value === state.mode;
  byId("compare").checked = state.compare;
  document.title = state.q ? `${state.q} · smar` : "smar";
  showFilters(state, changed);
}

function clear() {
  clearFilters(state);
  changed(0);
}

function pick(query) {
  state.q = query;
  changed(0);
  byId("query").focus();
}

function watch() {
  const query = byId("query");
  query.addEventListener("input", (event) => {
    state.q = query.value;
    if (!event.isComposing) changed(TYPING_PAUSE, false);
  });
  query.addEventListener("compositionend", () => changed(TYPING_PAUSE, false));
  byId("search").addEventListener("submit", (event) => {
    event.preventDefault();
    state.q = query.value;
    changed(0, true);
  });
  byId("modes").addEventListener("change", (event) => {
    state.mode = event.target.value;
    changed(0);
  });
  byId("compare").addEventListener("change", (event) => {
    state.compare = event.target.checked;
    changed(0);
  });
  document.addEventListener("keydown", (event) => {
    const typing = event.target.closest("input:not([type=checkbox]):not([type=radio]), textarea, dialog[open]");
    if (event.key !== "/" || typing || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    query.focus();
    query.select();
  });
  addEventListener("popstate", () => {
    state = fromAddress();
    show();
    schedule(0);
  });
  document.querySelector(".brand").addEventListener("click", (event) => {
    if (event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    state = empty();
    changed(0, true);
    query.focus();
  });
  const wide = matchMedia("(min-width: 900px)");
  const unfold = () => (byId("filter-box").open = wide.matches);
  wide.addEventListener("change", unfold);
  unfold();
  watchDetail();
}

async function start() {
  watch();
  show();
  if (state.q.trim()) schedule(0);
  try {
    facets = await api.facets();
    filterable = buildFilters(facets, () => state, changed);
    show();
  } catch (error) {
    // searching works without the panel; say why it is not there
    filterable = true;
    byId("filters").replaceChildren(el("p", { className: "quiet" }, `No filters: ${error.message}`));
  }
  if (state.q.trim()) byId("filters").hidden = !filterable;
  else run();
}

start();
