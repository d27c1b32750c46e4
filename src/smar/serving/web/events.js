// What of the results was seen and opened, reported to a service that takes events (docs/events.md).

const SEEN = 1000; // ms that half of a card must have been on the screen
const PAUSE = 2000; // ms between two reports
const MOST = 100; // events of a report: a beacon holds 64 KB

let takes = null; // whether the service takes events; until it has said so they wait
let recorded = false; // whether events tell their session
let waiting = [];
let timer = 0;
const told = new Set();
const timers = new Map(); // card on the screen -> its timer
const hits = new WeakMap();

const observer = new IntersectionObserver(
  (entries) => {
    for (const { target, isIntersecting } of entries) {
      clearTimeout(timers.get(target));
      timers.delete(target);
      if (isIntersecting) timers.set(target, setTimeout(seen, SEEN, target));
    }
  },
  { threshold: 0.5 },
);

/** Report a card: that it was seen, once, and each time that it is clicked. */
export function watchCard(card, hit) {
  if (takes === false || !hit.query_id) return;
  hits.set(card, hit);
  observer.observe(card);
  card.addEventListener("click", () => {
    seen(card); // a click says so sooner than the clock
    note("click", hit);
    send();
  });
}

/** Begin, or forget what waits, by what the service says of itself. */
export function startEvents(about) {
  takes = Boolean(about.events);
  if (!takes) {
    observer.disconnect();
    waiting = [];
    return;
  }
  recorded = Boolean(about.events_sessions);
  addEventListener("visibilitychange", () => document.visibilityState === "hidden" && send());
  addEventListener("pagehide", send);
  later();
}

/** A random name that ends with the tab, by which indexes that are compared answer one session alike. */
export const session = () => (sessionStorage.session ??= [...crypto.getRandomValues(new Uint32Array(4))].map((one) => one.toString(36)).join(""));

function seen(card) {
  clearTimeout(timers.get(card));
  timers.delete(card);
  observer.unobserve(card);
  const hit = hits.get(card);
  const name = `${hit.query_id} ${hit.item_id}`;
  if (told.has(name) || !card.isConnected) return;
  told.add(name);
  note("impression", hit);
  later();
}

function note(action, { query_id, item_id, rank, team }) {
  const variant = team ? { variant: team } : {}; // of a search that one index answered, the service knows it
  // no timestamp: a shopper's clock may be wrong, the service's is not
  waiting.push({ action_name: action, query_id, event_attributes: { object: { object_id: item_id }, position: { ordinal: rank }, ...variant } });
}

function later() {
  timer ||= setTimeout(send, PAUSE);
}

function send() {
  clearTimeout(timer);
  timer = 0;
  while (takes && waiting.length) {
    const some = waiting.slice(0, MOST).map((event) => (recorded ? { ...event, session_id: session() } : event));
    if (!navigator.sendBeacon("v1/events", JSON.stringify(some))) return later(); // the browser's own queue is full
    waiting = waiting.slice(MOST);
  }
}
