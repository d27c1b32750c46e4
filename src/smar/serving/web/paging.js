// A list that grows: the next hits come before the reader is at its end, by scrolling, by Tab, or by its button.

import { el } from "./dom.js";

export const PAGE = 48;
const DEEPEST = 1000; // hits that the service shows of one search
const AHEAD = "900px"; // of the end: the next hits are asked for, and there when it is reached

/** The grid of an answer, and what makes it longer.
 * `draw(hit)` makes a card, `ask(offset)` promises the answer from there on, `told(shown, answer)` says how many there are. */
export function growingList(answer, draw, ask, told) {
  const list = el("ul", { className: "grid results" });
  const button = el("button", { type: "button", className: "quiet-button" }, "Show more");
  const foot = el("p", { className: "more" }, button);
  const seen = new Set(); // a deeper search may find what moves the others by one
  let at = 0;
  let loading = false;
  let pressed = false;

  function add(found) {
    at += found.hits.length;
    const fresh = found.hits.filter((hit) => !seen.has(hit.item_id));
    for (const hit of fresh) seen.add(hit.item_id);
    const cards = fresh.map(draw);
    list.append(...cards);
    foot.hidden = found.hits.length < PAGE || at >= Math.min(found.total.value, DEEPEST);
    told(list.children.length, found);
    return cards[0];
  }

  async function more() {
    if (loading || foot.hidden) return;
    loading = true;
    try {
      const first = add(await ask(at, Math.min(PAGE, DEEPEST - at)));
      if (pressed) first?.querySelector(".card").focus({ preventScroll: true });
    } catch (error) {
      if (error.name !== "AbortError") button.textContent = `Show more (${error.message})`;
    }
    loading = pressed = false;
  }

  button.addEventListener("click", () => {
    pressed = true;
    button.textContent = "Show more";
    more();
  });
  add(answer);
  new IntersectionObserver((entries) => entries.some((entry) => entry.isIntersecting) && more(), { rootMargin: `0px 0px ${AHEAD} 0px` }).observe(foot);
  return [list, foot];
}
