// The page: one slide in hand, its layers, its review; what is in the address is what is shown.

import { showCase, showTile } from "./case.js";
import { $, el, flash, length_um, number, remember, remembered, say } from "./dom.js";
import { listenToKeys } from "./keys.js";
import { Layers } from "./layers.js";
import { readLink } from "./link.js";
import { Pair } from "./pair.js";
import { Regions } from "./regions.js";
import { Review } from "./review.js";
import { getJson, slidePath } from "./server.js";
import { SlideList } from "./slides.js";
import { Stage } from "./stage.js";
import { Tiles } from "./tiles.js";

const FILM = 40;
const LINK_MS = 250;
const POWER_UM = 10;
const CARD_PX = 276;
const NARROW = "(max-width: 1080px)"; // as in viewer.css
const PHONE = "(max-width: 640px)";

const main = new Stage($("picture-main"), { navigator: true });
const state = { slide: null, pinned: -1, hovered: -1, film: false };
let run, list, regions, review, pair, linkTimer, turns = 0, opening = false, losses = [];
const layers = new Layers(main, () => writeLink());

// --- the address -------------------------------------------------------------------------------------------------

function linkText() {
  const link = new URLSearchParams({ slide: state.slide.id });
  if (main.isOpen) {
    const { x, y, zoom } = main.view();
    link.set("x", x.toFixed(1));
    link.set("y", y.toFixed(1));
    link.set("zoom", String(+zoom.toPrecision(5)));
    link.set("layers", layers.inWords());
    if (layers.tiles && layers.colourBy !== "scores") link.set("by", layers.colourBy);
    if (state.pinned >= 0) link.set("tile", String(state.pinned));
    if (pair.beside) link.set("beside", pair.beside);
    if (pair.beside && pair.inWords()) link.set("lie", pair.inWords());
  }
  return `#${link}`;
}

function writeLink(now = false) {
  if (!state.slide || opening) return;
  clearTimeout(linkTimer);
  linkTimer = setTimeout(() => history.replaceState(null, "", linkText()), now ? 0 : LINK_MS);
}

async function copyLink() {
  history.replaceState(null, "", linkText());
  try {
    await navigator.clipboard.writeText(location.href);
    say("Link copied");
    flash("copy-link", "Copied");
  } catch {
    flash("copy-link", "In the address bar");
  }
}

// --- a slide -----------------------------------------------------------------------------------------------------

async function openSlide(id, link = {}) {
  const turn = ++turns;
  opening = true;
  clearTimeout(linkTimer); // the view of the slide before has no place in the address of this one
  if (!list.get(id)) {
    opening = false;
    showMessage("No such slide", `There is no slide ${id} in ${run.name}.`);
    return;
  }
  if (state.slide?.id !== id && !link.fromAddress) history.pushState(null, "", `#${new URLSearchParams({ slide: id })}`);
  list.setCurrent(id);
  if (!losses.length) hideMessage(); // what was not saved is said until it is read
  let slide, tiles = null;
  try {
    slide = await getJson(slidePath(id));
  } catch (error) {
    if (turn === turns) { opening = false; showMessage("This slide cannot be shown", error.message); }
    return;
  }
  if (turn !== turns) return;
  Object.assign(state, { slide, pinned: -1, hovered: -1 });
  document.title = `${id} · ${run.name} · he2her2`;
  showCase(slide, run.score_colours, list.siblings(slide), openSlide);
  review.show(slide);
  layers.set(slide, null, link.layers);
  showTile(layers, -1);
  showFilm();
  $("hud").hidden = !slide.file;
  $("layers-section").hidden = !slide.file;
  document.body.classList.toggle("no-picture", !slide.file);
  if (slide.file) {
    await main.open(id, slide.file, link.view);
    if (turn !== turns) return;
  } else {
    main.close();
    showMessage("The picture of this slide cannot be shown", ...slide.problems.map((text) => text.replace(`${id}: `, "")));
  }
  const loading = regions.open(slide, run.writable);
  if (slide.tiles?.n && slide.file) {
    try {
      tiles = await new Tiles(id, slide.tiles, run.score_colours).load();
    } catch (error) {
      showMessage("The tiles cannot be shown", error.message);
    }
  }
  if (turn !== turns) return;
  if (link.by) layers.colourBy = link.by;
  layers.set(slide, tiles, link.layers);
  showTile(layers, -1);
  showFilm();
  await loading;
  if (turn !== turns) return;
  pair.show(slide, link.beside, link.lie);
  if (tiles && link.tile >= 0 && link.tile < tiles.n) pin(link.tile);
  opening = false;
  main.redraw();
  showHud();
  writeLink();
  say(`${id} ${slide.failure ? `failed: ${slide.failure.reason}` : slide.result?.headline ?? ""}`);
  document.body.dataset.ready = id;
}

function showMessage(title, ...texts) {
  show(title, texts, Boolean(state.slide?.file && main.isOpen));
}

// Stays on whatever slide is seen, with what was lost before and is not closed yet.
function showLoss(text) {
  const all = [...losses, text];
  show("Not saved", all, true);
  losses = all;
}

function show(title, texts, strip) {
  losses = [];
  $("message").className = strip ? "strip" : "";
  $("message").replaceChildren(el("h2", {}, title), ...texts.map((text) => el("p", {}, text)),
    el("p", {}, el("button", { type: "button", onclick: () => location.reload() }, "Load the page again"), strip && " ",
      strip && el("button", { type: "button", onclick: hideMessage }, "Close")));
  $("message").hidden = false;
}

function hideMessage() {
  losses = [];
  $("message").hidden = true;
}

// A tile that did not come: ask once what is wrong with the slide.
let asked = 0;
main.failed.push(async () => {
  if (!state.slide?.file || Date.now() - asked < 2000) return;
  asked = Date.now();
  try {
    const now = await getJson(slidePath(state.slide.id));
    if (!now.file) showMessage("The slide's file is gone", ...now.problems);
    else if (now.file.version !== state.slide.file.version) showMessage("The slide was replaced while it was shown", "What you see is the earlier file.");
  } catch (error) {
    showMessage("No picture", error.message);
  }
});

// --- tiles -------------------------------------------------------------------------------------------------------

$("close-tile").addEventListener("click", () => pin(-1));

function pin(index) {
  state.pinned = index;
  showTile(layers, index, index >= 0 ? { pinned: true, go: goToTile, step: stepTile } : {});
  if (index < 0) state.hovered = -1;
  for (const button of $("film").querySelectorAll("button")) {
    const here = Number(button.dataset.index) === index;
    button.setAttribute("aria-pressed", String(here));
    if (here) button.scrollIntoView({ block: "nearest", inline: "nearest" });
  }
  main.redraw();
  writeLink();
}

function goToTile(index) {
  const { tiles } = layers;
  const [x, y] = tiles.origin(index);
  const { clientWidth, clientHeight } = main.element;
  const zoom = Math.max((tiles.side * 2.2) / Math.min(clientWidth, clientHeight), 0.5);
  const beside = Math.min(CARD_PX, clientWidth / 2) / 2; // the card lies on the right
  main.goTo({ x: x + tiles.side / 2 + beside * zoom, y: y + tiles.side / 2, zoom });
  pin(index);
  say(`Tile of rank ${tiles.rank[index]}, ${tiles.ranking.title} ${number(tiles.value(tiles.ranking, index), 2)}`);
}

function stepTile(by) {
  const { tiles } = layers;
  if (!tiles?.n) return;
  const at = state.pinned < 0 ? (by > 0 ? 0 : -1) : tiles.rank[state.pinned] - 1 + by;
  if (at >= 0 && at < tiles.n) goToTile(tiles.byRank[at]);
}

function stepDeciding(by) {
  const { tiles } = layers;
  if (!tiles?.deciding.length) return;
  const at = tiles.deciding.indexOf(state.pinned);
  goToTile(tiles.deciding[Math.min(Math.max(at + by, 0), tiles.deciding.length - 1)]);
}

function showFilm() {
  const { tiles } = layers, described = state.slide?.tiles;
  const show = Boolean(state.film && state.slide?.file && described?.n && described.columns.some((column) => column.name === "selected"));
  $("evidence").hidden = !show; // as soon as the slide is known, so that the picture keeps its size
  document.body.classList.toggle("with-film", show);
  if (!show || !tiles) return $("film").replaceChildren();
  const shown = tiles.deciding.slice(0, FILM);
  $("evidence-count").textContent = shown.length < tiles.deciding.length ? `${shown.length} highest of ${tiles.deciding.length}` : String(shown.length);
  $("film").replaceChildren(...shown.map((index) => {
    const score = number(tiles.value(tiles.ranking, index), 2);
    return el("li", {}, el("button", {
      type: "button", "data-index": String(index), "aria-pressed": String(index === state.pinned),
      "aria-label": `Deciding tile, rank ${tiles.rank[index]}, ${score}`, onclick: () => goToTile(index),
    }, el("img", { alt: "", loading: "lazy", decoding: "async", src: slidePath(tiles.id, `/tiles/${index}`) }), el("span", { "aria-hidden": "true" }, score)));
  }));
}

main.element.addEventListener("pointermove", (event) => {
  if (!main.isOpen) return;
  const { left, top } = main.element.getBoundingClientRect();
  const [x, y] = main.toSlide(event.clientX - left, event.clientY - top);
  showPlace(x, y);
  if (!layers.tiles) return;
  const index = layers.tiles.under(x, y);
  if (index === state.hovered) return;
  state.hovered = index;
  if (state.pinned < 0) showTile(layers, index);
  main.redraw();
});
main.element.addEventListener("pointerleave", () => {
  state.hovered = -1;
  if (state.pinned < 0) showTile(layers, -1);
  main.redraw();
});
main.osd.addHandler("canvas-click", (event) => {
  if (!event.quick || regions.tool || main.claimed || !layers.tiles) return;
  pin(layers.tiles.under(...main.toSlide(event.position.x, event.position.y)));
});
main.drawers.push((context, { scale, dx, dy }) => {
  if (!layers.tiles || layers.muted) return;
  for (const [index, width] of [[state.hovered, 1.5], [state.pinned, 3]]) {
    if (index < 0) continue;
    const [x, y] = layers.tiles.origin(index), side = layers.tiles.side * scale;
    context.lineWidth = width + 2;
    context.strokeStyle = "rgb(255 255 255 / .9)";
    context.strokeRect(dx + x * scale, dy + y * scale, side, side);
    context.lineWidth = width;
    context.strokeStyle = "#6a2c70";
    context.strokeRect(dx + x * scale, dy + y * scale, side, side);
  }
});

// --- scale and place ---------------------------------------------------------------------------------------------

function showHud() {
  if (!main.isOpen) return;
  const { mpp } = state.slide.file, zoom = main.view().zoom;
  $("hud-zoom").textContent = mpp
    ? `${+(POWER_UM / (mpp * zoom)).toPrecision(3)}×  ·  ${+(mpp * zoom).toPrecision(3)} µm/px`
    : `1 : ${+zoom.toPrecision(3)} px, scale unknown`;
  if (!mpp) {
    $("scale-bar").hidden = true;
    $("scale-text").textContent = "";
    return;
  }
  $("scale-bar").hidden = false;
  const longest = 140 * mpp * zoom, power = 10 ** Math.floor(Math.log10(longest));
  const um = [5, 2, 1].map((step) => step * power).find((step) => step <= longest);
  $("scale-bar").style.width = `${um / (mpp * zoom)}px`;
  $("scale-text").textContent = length_um(um);
}

function showPlace(x, y) {
  const { mpp } = state.slide.file;
  $("hud-place").textContent = mpp ? `${(x * mpp / 1000).toFixed(3)}, ${(y * mpp / 1000).toFixed(3)} mm` : `${Math.round(x)}, ${Math.round(y)} px`;
}

main.moved.push(() => { showHud(); writeLink(); });

// --- looks -------------------------------------------------------------------------------------------------------

function toggleTheme() {
  const dark = getComputedStyle(document.documentElement).colorScheme === "dark" || (document.documentElement.dataset.theme === "auto" && matchMedia("(prefers-color-scheme: dark)").matches);
  setTheme(dark ? "light" : "dark");
}

function setTheme(theme) {
  document.documentElement.dataset.theme = theme;
  remember("theme", theme);
}

// On a phone they lie over the picture, and one at a time.
function showSide(name, show) {
  document.body.classList.toggle(`no-${name}`, !show);
  $(`toggle-${name}`).setAttribute("aria-pressed", String(show));
  if (show && matchMedia(PHONE).matches) showSide(name === "list" ? "panel" : "list", false);
}

const toggleSide = (name) => showSide(name, document.body.classList.contains(`no-${name}`));

function toggleFilm() {
  state.film = !state.film;
  showFilm();
}

const acts = {
  "zoom-in": () => main.zoomBy(1.5), "zoom-out": () => main.zoomBy(1 / 1.5), "home": () => main.home(),
  "full": () => main.pixelForPixel(), "pair": () => pair.toggle(),
};

function listen() {
  document.querySelectorAll("[data-act]").forEach((button) => button.addEventListener("click", acts[button.dataset.act]));
  document.querySelectorAll("[data-tool]").forEach((button) => button.addEventListener("click", () => regions.use(button.dataset.tool)));
  $("toggle-list").addEventListener("click", () => toggleSide("list"));
  $("toggle-panel").addEventListener("click", () => toggleSide("panel"));
  $("toggle-theme").addEventListener("click", toggleTheme);
  $("copy-link").addEventListener("click", copyLink);
  $("open-help").addEventListener("click", () => $("help").showModal());
  window.addEventListener("beforeunload", (event) => { if (regions.saving) event.preventDefault(); });
  window.addEventListener("popstate", fromAddress);
  window.addEventListener("hashchange", () => { if (readLink(location.hash).slide !== state.slide?.id) fromAddress(); });
  const digits = Array.from({ length: 9 }, (_, i) => ({ keys: [String(i + 1)], run: () => { const layer = layers.list[i]; if (layer) say(`${layer.title} ${layers.toggle(layer.key).on ? "on" : "off"}`); } }));
  listenToKeys([
    { keys: ["j"], shown: ["J", "K"], says: "next, previous slide", run: () => list.step(1) },
    { keys: ["k"], run: () => list.step(-1) },
    { keys: ["/"], says: "search slides", run: () => { document.body.classList.contains("no-list") && toggleSide("list"); $("search").focus(); } },
    { keys: ["n"], shown: ["N", "Shift N"], says: "next, previous deciding tile", run: () => stepDeciding(1) },
    { keys: ["N"], run: () => stepDeciding(-1) },
    { keys: ["e"], shown: ["E"], says: "strip of deciding tiles", run: toggleFilm },
    { keys: ["+", "="], shown: ["+", "−"], says: "zoom", run: acts["zoom-in"] },
    { keys: ["-", "_"], run: acts["zoom-out"] },
    { keys: ["0", "Home"], shown: ["0"], says: "whole slide", run: acts.home },
    { keys: ["f"], shown: ["F"], says: "full resolution, pixel for pixel", run: acts.full },
    { keys: ["ArrowLeft"], shown: ["← → ↑ ↓"], says: "move", run: () => main.panBy(-0.25, 0) },
    { keys: ["ArrowRight"], run: () => main.panBy(0.25, 0) },
    { keys: ["ArrowUp"], run: () => main.panBy(0, -0.25) },
    { keys: ["ArrowDown"], run: () => main.panBy(0, 0.25) },
    ...digits.slice(0, 1).map((act) => ({ ...act, shown: ["1", "…", "9"], says: "switch a layer" })), ...digits.slice(1),
    { keys: ["["], shown: ["[", "]"], says: "layers fainter, stronger", run: () => layers.fade(-0.1) },
    { keys: ["]"], run: () => layers.fade(0.1) },
    { keys: [], shown: ["Space"], says: "hold: the tissue alone", run: () => {} },
    { keys: ["d"], shown: ["D", "G", "B"], says: "draw polygon, freehand, box", run: () => regions.use("polygon") },
    { keys: ["g"], run: () => regions.use("freehand") },
    { keys: ["b"], run: () => regions.use("rectangle") },
    { keys: ["v"], shown: ["V"], says: "take the view as a region", run: () => regions.takeView() },
    { keys: ["Enter"], shown: ["Enter", "Esc"], says: "close the polygon, leave", run: () => regions.finish() },
    { keys: ["Escape"], run: () => (pair.points ? pair.match() : regions.tool ? regions.use(null) : (pin(-1), regions.select(-1))) },
    { keys: ["Delete", "Backspace"], shown: ["Del"], says: "delete the selected region", run: () => regions.remove() },
    { keys: ["a"], shown: ["A", "X", "U"], says: "agree, disagree, unsure", run: () => review.give(run.verdicts[0]) },
    { keys: ["x"], run: () => review.give(run.verdicts[1]) },
    { keys: ["u"], run: () => review.give(run.verdicts[2]) },
    ...pair.acts(),
    { keys: ["l"], shown: ["L", "P"], says: "list, case: show or hide", run: () => toggleSide("list") },
    { keys: ["p"], run: () => toggleSide("panel") },
    { keys: ["c"], shown: ["C"], says: "copy a link to this view", run: copyLink },
    { keys: ["t"], shown: ["T"], says: "light or dark", run: toggleTheme },
    { keys: ["?"], says: "this help", run: () => $("help").showModal() },
  ], (muted) => layers.mute(muted));
}

function fromAddress() {
  const asked = readLink(location.hash);
  if (!asked.slide && state.slide) return writeLink(true); // a link within the page
  const first = asked.slide ?? list.shown[0]?.id;
  if (first) openSlide(first, { ...asked, fromAddress: true });
}

async function start() {
  if (remembered("theme")) setTheme(remembered("theme"));
  try {
    run = await getJson("api/slides");
  } catch (error) {
    showMessage("Nothing can be shown", error.message);
    return;
  }
  $("notice").textContent = run.notices.map((text) => text[0].toUpperCase() + text.slice(1)).join(" · ");
  $("notice").title = run.notices.join("\n");
  state.film = run.is_run;
  if (matchMedia(NARROW).matches) showSide("list", false);
  if (matchMedia(PHONE).matches) showSide("panel", false);
  list = new SlideList(run, (id) => { if (matchMedia(PHONE).matches) showSide("list", false); openSlide(id); });
  regions = new Regions(main, run.region_classes, layers, showLoss);
  review = new Review(list, run, (text) => regions.note(text), showLoss);
  pair = new Pair(main, list, run.writable, () => writeLink(), (error) => showMessage("The other stain cannot be shown", error.message));
  listen();
  window.he2her2 = { main, layers, regions, state, list, pairing: pair, get pair() { return pair.stage; } }; // for tests and the curious
  fromAddress();
}

start();
