// The case beside the picture: the call and what it rests on, the tile in hand, the verdict, the slide and its run.

import { $, area_mm2, count, el, number, percent, probability, rgb } from "./dom.js";
import { slidePath } from "./server.js";

export const REFER = "refer to IHC";
const ARMS = { "rule out": "Rule out: below the limit for HER2-positive", "rule in": "Rule in: above the limit for HER2-positive" };

const facts = (rows) => el("dl", { class: "facts" }, rows.filter(Boolean).flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, value)]));
const cautions = (texts) => (texts.length ? el("ul", { class: "cautions" }, texts.map((text) => el("li", {}, text))) : null);

// A slide's call in a word; none without a prediction. Where the triage refers to IHC, nothing else is called.
export const callOf = ({ state, status, triage }) => (state !== "predicted" ? null : triage === REFER ? triage : status);
export const differ = (slides) => new Set(slides.map(callOf).filter(Boolean)).size > 1;

// `others` are the patient's other slides of the run; `open` shows one of them.
export function showCase(slide, colours, others, open) {
  const { result, failure } = slide;
  const body = slide.patient_call ? patient(slide.patient, slide.patient_call) : [];
  if (failure) {
    body.push(el("p", { class: "call failed" }, `Failed: ${failure.stage}`), el("p", {}, failure.reason), el("p", { class: "quiet" }, `What to do: ${failure.remedy}`));
  } else if (slide.status) { // also where its evidence is gone or damaged
    body.push(...prediction(result?.status ? result : { ...slide, triage: { arm: slide.triage } }));
  } else if (result) {
    body.push(el("p", { class: "call" }, "Segmented only"), el("p", { class: "quiet" }, "Tissue, quality and tumour were found; no tile was scored."));
  } else {
    body.push(el("p", { class: "call" }, slide.id), el("p", { class: "quiet" }, "No result: this slide is shown as it is."));
  }
  if (result) body.push(...rests(result, colours));
  if (others.length) body.push(...siblings(slide, others, open));
  const unlike = result?.unlike ? [result.unlike] : [];
  const other = (result?.warnings ?? slide.warnings ?? []).filter((text) => text !== result?.unlike);
  const said = (text) => failure && text.includes(failure.reason);
  body.push(cautions([...unlike, ...slide.problems.filter((text) => !said(text)), ...other, ...(result?.notices ?? []), ...(slide.file?.cautions ?? []).filter((text) => !other.includes(text))]));
  $("case-title").textContent = slide.id;
  $("case-body").replaceChildren(...body.filter(Boolean));
  showSource(slide);
}

function call(status, triage) {
  const said = triage === REFER ? "Refer to IHC" : status ? `HER2 ${status}` : triage ? triage[0].toUpperCase() + triage.slice(1) : "No result";
  return el("p", { class: `call ${triage === REFER ? "" : status}` }, said);
}

// The call of a patient of several slides, which stands above that of the slide alone.
function patient(id, said) {
  const { slides, failed, unlike, combined_by: rule, status, triage } = said, value = probability(said.probability, said.threshold);
  const by = slides > 1 ? `by the ${rule} of ${slides} slides, ${value}` : slides ? `by one slide, ${value}` : "no slide has a result";
  return [
    el("h3", {}, `Patient ${id}`), call(status, triage),
    el("p", { class: "quiet" }, `${triage && triage !== REFER ? `${triage}, ` : ""}${by}${said.guaranteed ? "" : `. What the rules promise does not hold: ${failed ? `${failed} of its slides without a result` : unlike ? `${unlike} of its slides unlike the training slides` : "another number of slides than the validation patients had"}.`}`),
    el("h3", {}, "By this slide alone"),
  ];
}

function siblings(slide, others, open) {
  const link = (other) => el("a", { href: `#slide=${encodeURIComponent(other.id)}`, onclick: (event) => { if (event.ctrlKey || event.metaKey || event.shiftKey) return; event.preventDefault(); open(other.id); } }, other.id);
  const said = (other) => (callOf(other) ? `${callOf(other)}, ${probability(other.probability, other.threshold)}` : other.state === "failed" ? "failed" : "segmented only");
  const unjoined = !slide.patient_call && differ([slide, ...others]);
  return [
    el("h3", {}, `Other slides of patient ${slide.patient}`),
    el("dl", { class: "facts" }, others.flatMap((other) => [el("dt", {}, link(other)), el("dd", { class: callOf(other) === other.status ? other.status : null }, said(other))])),
    unjoined ? cautions(["The slides of this patient are called differently, and no stored rule joins them."]) : null,
  ];
}

function prediction(result) {
  const at = (value) => ({ left: `${100 * value}%` });
  const triage = result.triage?.arm, from = +result.threshold.toPrecision(6);
  const value = probability(result.probability, result.threshold, result.triage?.rule_out_below, result.triage?.rule_in_from);
  return [
    call(result.status, triage),
    ARMS[triage] ? el("p", {}, ARMS[triage]) : null,
    el("div", { class: "meter", role: "img", "aria-label": `Probability ${value} of 0 to 1, called positive from ${from}` },
      el("b", { class: "value", style: at(Math.min(Math.max(result.probability, 0.06), 0.94)) }, value),
      el("i", { style: at(result.probability) }),
      el("i", { style: { ...at(result.threshold), width: "1px", opacity: ".6" } }),
      el("b", { style: at(Math.min(Math.max(result.threshold, 0.2), 0.8)) }, `positive from ${from}`)),
  ].filter(Boolean);
}

function rests(result, colours) {
  const { counts, area_mm2: areas, quality } = result;
  return [facts([
    result.calibrated_probability !== undefined && result.calibrated_probability !== null && ["Calibrated", probability(result.calibrated_probability, result.calibrated_threshold)],
    result.tile_score && ["Median selected tile", `IHC ${result.tile_score}`],
    ["Tumour in usable tissue", `${area_mm2(areas.tumour)} in ${area_mm2(areas.usable)}`],
    counts.scored > 0 && ["Tiles that decided", `${counts.selected} of ${count(counts.scored)}`],
    counts.unreadable > 0 && ["Tiles that cannot be decoded", String(counts.unreadable)],
    ["Pen ink, out of focus", `${percent(quality.pen_share)}, ${percent(quality.blur_share)}`],
  ]), result.per_score ? scoreShares(result.per_score, colours) : null];
}

// How many tiles have each predicted score, as one bar.
function scoreShares(perScore, colours) {
  const found = Object.entries(perScore), total = found.reduce((sum, [, n]) => sum + n, 0);
  if (!total) return null;
  return el("div", { class: "shares", role: "img", "aria-label": `Scored tiles: ${found.map(([score, n]) => `${n} of IHC ${score}`).join(", ")}` },
    el("div", { class: "stack" }, found.map(([score, n]) => el("span", { style: { width: `${(100 * n) / total}%`, background: rgb(colours[score]) } }))),
    el("div", { class: "ends quiet" }, found.map(([score, n]) => el("span", {}, `${count(n)} × ${score}`))));
}

function showSource(slide) {
  const { file, result } = slide;
  $("source-body").replaceChildren(facts([
    file && ["File", file.name],
    file && ["Size", `${count(file.size[0])} × ${count(file.size[1])} px`],
    file && ["Scale", file.mpp ? `${+file.mpp.toPrecision(4)} µm/px` : "unknown: no µm per pixel in the file"],
    file && ["Scanner", file.vendor],
    slide.patient && ["Patient", slide.patient],
    slide.stain && ["Stain", slide.stain],
    result && ["Settings", result.preset],
    result && ["he2her2", result.version],
    result?.ended && ["Result written", result.ended.replace("T", " ").replace("+00:00", " UTC")],
    result?.operating_point && ["Threshold chosen on", result.operating_point.chosen_on],
  ]));
}

// The tile under the pointer, or the one that was clicked, with its pixels as the network saw them.
export function showTile(layers, index, { pinned = false, go, step } = {}) {
  const { tiles } = layers;
  $("tile").hidden = !tiles || index < 0;
  $("tile").classList.toggle("pinned", pinned);
  $("close-tile").hidden = !pinned;
  if ($("tile").hidden) return;
  const [x, y] = tiles.origin(index);
  const others = tiles.choices.filter((choice) => !["scores", "logits"].includes(choice.column.name));
  const rank = tiles.rank[index];
  $("tile-title").textContent = tiles.isSelected(index) ? "Tile that decided" : "Tile";
  const rows = [
    tiles.values.scores && ["Score, 0 to 3", number(tiles.values.scores[index], 2)],
    [tiles.values.scores ? "Rank by score" : "Rank", `${count(rank)} of ${count(tiles.n)}`],
    ...others.map((choice) => [choice.title, String(+tiles.value(choice, index).toPrecision(3))]),
    pinned && ["Place, px", `${x}, ${y}`],
    pinned && ["Side", `${Math.round(tiles.sidePx * tiles.mpp)} µm, ${+tiles.mpp.toPrecision(3)} µm/px`],
  ];
  $("tile-body").replaceChildren(...[
    pinned ? el("img", { alt: `Tile of rank ${rank} at full resolution`, src: slidePath(tiles.id, `/tiles/${index}`), width: String(tiles.sidePx), height: String(tiles.sidePx) }) : null,
    pinned ? el("div", { class: "row" },
      el("button", { type: "button", title: "The tile with the next higher score", disabled: rank <= 1, onclick: () => step(-1) }, "‹ Higher"),
      el("button", { type: "button", title: "Go to this tile", onclick: () => go(index) }, "Show"),
      el("button", { type: "button", title: "The tile with the next lower score", disabled: rank >= tiles.n, onclick: () => step(1) }, "Lower ›")) : null,
    facts(rows),
    layers.tileBars(index),
  ].filter(Boolean));
}
