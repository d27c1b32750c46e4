// Product cards and the dialog that explains one of them.

import * as api from "./api.js";
import { byId, el, icon, label, money, percent } from "./dom.js";
import { watchCard } from "./events.js";
import { quoted } from "./state.js";

const HIDDEN = new Set(["item_id", "title", "image_status"]);
const PICTURE_SIZE = 256;
const MOST_OTHERS = 24;
const BROKEN = new Set(["truncated", "corrupt", "too_large", "not_an_image"]);

const noPicture = (text) =>
  el(
    "span",
    { className: "no-picture" },
    icon("", "M4 5h16v14H4z", "m4 16 5-5 4 4 3-3 4 4", "M15.5 9.5h.01"),
    text,
  );

/** The picture at `address`, null where there is none; `eager` for what is above the fold. */
export function pictureTile(address, eager, missing = "No picture") {
  const tile = el("span", { className: "tile" });
  if (!address) {
    tile.append(noPicture(missing));
    return tile;
  }
  // the card's own text names the product: a repeated alt text would be read twice
  const image = el("img", { alt: "", width: PICTURE_SIZE, height: PICTURE_SIZE, decoding: "async" });
  image.loading = eager ? "eager" : "lazy";
  image.addEventListener("error", () => image.replaceWith(noPicture("Picture did not load")), { once: true });
  image.src = address;
  tile.append(image);
  return tile;
}

const pictureOf = (hit, eager) =>
  pictureTile(hit.picture, eager, BROKEN.has(hit.item.image_status) ? "Picture unreadable" : undefined);

const title = (hit) => hit.item.title ?? hit.item_id;
const price = (item) => (typeof item.price === "number" ? money(item.price) : "");

/** One product; `mark` is {kind, text} of the badge, `eager` for pictures above the fold. */
export function card(hit, { mark = null, eager = false, context }) {
  const { item } = hit;
  const tile = pictureOf(hit, eager);
  if (mark) tile.append(el("span", { className: `mark ${mark.kind}` }, mark.text));
  const button = el(
    "button",
    { type: "button", className: "card" },
    tile,
    el("span", { className: "title", dir: "auto" }, title(hit)),
    el("span", { className: "facts", dir: "auto" }, [item.brand, item.category].filter(Boolean).join(" · ")),
    el("span", { className: "price" }, price(item)),
    hit.others?.count ? el("span", { className: "others" }, othersText(hit, context.collapse)) : "",
  );
  button.addEventListener("click", () => openDetail(hit, context));
  watchCard(button, hit);
  return el("li", { className: mark ? `is-${mark.kind}` : "" }, button);
}

/** "3 more colours": what else the card stands for. */
const othersText = ({ others: { count } }, { noun }) => `${count} more ${count === 1 ? noun.replace(/s$/, "") : noun}`;

/** The other items of a card; none where they cannot be had. */
async function addOthers(list, hit, context) {
  const { column } = context.collapse;
  const filter = `${quoted(column)}=${quoted(String(hit.item[column]))}`;
  const { hits } = await api.browse(filter, MOST_OTHERS).catch(() => ({ hits: [] }));
  const cards = hits
    .filter((one) => one.item_id !== hit.item_id)
    .map((one) => {
      const button = el("button", { type: "button", className: "card", "aria-label": title(one) }, pictureOf(one, true));
      button.addEventListener("click", () => openDetail({ ...hit, ...one, others: hit.others, alone: true }, context));
      return el("li", {}, button);
    });
  list.append(...cards);
}

const score = (name, value, strong) =>
  el(
    "div",
    { className: strong ? "score strong" : "score" },
    el("span", {}, name),
    el("meter", { min: 0, max: 1, value: Math.max(0, value), "aria-label": name }),
    el("span", { className: "figure" }, value.toFixed(3)),
  );

function why(hit, { mode, probability }) {
  const rank = hit.rank_text === null ? "far down" : `number ${hit.rank_text}`;
  const blend = {
    text: "Ranked by (words)",
    multimodal: "Ranked by (words and picture)",
    picture: "Ranked by (words and picture)",
    similar: "Ranked by (half and half)",
    hybrid: "Ranked by (fused with the words as they stand)",
  }[mode];
  const lines = [
    el("h3", {}, "Why this result"),
    score("Words", hit.text_score, false),
    score("Words and picture", hit.multimodal_score, false),
    score(blend ?? `Ranked by (pictures count ${percent(probability)})`, hit.score, true),
  ];
  const sentence = {
    text: `Number ${hit.rank} by words alone.`,
    picture: `Number ${hit.rank} for your picture.`,
    similar: `Number ${hit.rank} in likeness.`,
  }[mode];
  return el("section", { className: "why" }, ...lines, el("p", {}, sentence ?? `Number ${hit.rank} here, ${rank} by words alone.`));
}

function openDetail(hit, context) {
  const dialog = byId("detail");
  const facts = Object.entries(hit.item).filter(([name, value]) => !HIDDEN.has(name) && value !== null && value !== "");
  const close = el("button", { type: "button", className: "close", "aria-label": "Close" }, "×");
  close.addEventListener("click", () => dialog.close());
  const like = el("button", { type: "button", className: "quiet-button" }, "More like this");
  like.addEventListener("click", () => {
    dialog.close();
    dispatchEvent(new CustomEvent("like", { detail: hit }));
  });
  const others = el("ul", { className: "grid tiny" });
  const variants = hit.others?.count && el("section", { className: "variants" }, el("h3", {}, `More ${context.collapse.noun}`), others);
  dialog.replaceChildren(
    close,
    pictureOf(hit, true),
    el(
      "div",
      { className: "about" },
      el("h2", { id: "detail-title", dir: "auto" }, title(hit)),
      el("dl", {}, ...facts.flatMap(([name, value]) => [el("dt", {}, label(name)), el("dd", {}, el("bdi", {}, shown(name, value)))])),
      variants || "",
      hit.alone ? "" : why(hit, context),
      el("p", { className: "actions" }, like),
    ),
  );
  if (variants) addOthers(others, hit, context);
  if (!dialog.open) dialog.showModal();
  close.focus();
}

function shown(name, value) {
  if (typeof value === "boolean") return value ? "yes" : "no";
  if (name === "price" && typeof value === "number") return money(value);
  if (Array.isArray(value) && value.every((one) => typeof one !== "object")) return value.join(", ");
  return typeof value === "object" ? JSON.stringify(value) : String(value);
}

/** Close the dialog when its backdrop is clicked. */
export function watchDetail() {
  const dialog = byId("detail");
  dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
}
