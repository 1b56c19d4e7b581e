// The list of slides: searched, sorted, one of them current.

import { callOf, differ } from "./case.js";
import { $, el, percent, probability } from "./dom.js";
import { slidePath } from "./server.js";

const last = (value) => (value === null || value === undefined ? Infinity : value);
const SORTS = {
  patient: ["Patient", () => 0],
  name: ["Name", () => 0],
  probability: ["Probability, highest first", (slide) => -(slide.probability ?? -1)],
  margin: ["Nearest to the threshold first", (slide) => last(slide.margin)],
  spoilt: ["Pen and blur, most first", (slide) => -(slide.spoilt ?? -1)],
  failed: ["Failed first", (slide) => (slide.state === "failed" ? 0 : 1)],
  open: ["Not reviewed first", (slide) => (slide.review?.verdict && slide.review.of_this_result ? 1 : 0)],
};
const called = (slide) => { const call = callOf(slide); return el("span", { class: call === slide.status ? call : null }, call); };
const PAGE = 200;
const MARKS = { agree: "✓", disagree: "✗", unsure: "?" };
const mark = ({ verdict, of_this_result: now }) => el("span", { "aria-label": `review: ${verdict}${now ? "" : ", on another result"}`, title: now ? null : "Given on another result" }, now ? MARKS[verdict] : "↻");

export class SlideList {
  constructor({ slides, unfinished }, open) {
    Object.assign(this, { slides, unfinished, open, current: null });
    this.patients = new Map();
    for (const slide of slides.filter(({ patient, state }) => patient && state !== "slide")) {
      this.patients.set(slide.patient, [...(this.patients.get(slide.patient) ?? []), slide]);
    }
    const given = (slide, key) => (key === "failed" ? slide.state === "failed" : key === "open" ? slide.state === "predicted" : slide[key] !== null && slide[key] !== undefined);
    const several = [...this.patients.values()].some((own) => own.length > 1);
    const has = (key) => key === "name" || (key === "patient" ? several : slides.some((slide) => given(slide, key)));
    $("sort").replaceChildren(...Object.entries(SORTS).filter(([key]) => has(key)).map(([key, [title]]) => el("option", { value: key }, title)));
    $("sort").addEventListener("change", () => this.show());
    $("search").addEventListener("input", () => this.show());
    $("search").addEventListener("keydown", (event) => {
      if (event.key === "Enter" && this.shown[0]) { this.open(this.shown[0].id); $("search").blur(); }
    });
    this.show();
  }

  get(id) {
    return this.slides.find((slide) => slide.id === id);
  }

  // The other slides of the run that are of the same patient.
  siblings(slide) {
    return (this.patients.get(slide.patient) ?? []).filter((other) => other.id !== slide.id);
  }

  show() {
    const plain = (text) => text.normalize("NFC").toLowerCase(); // macOS writes an umlaut as two characters
    const words = plain($("search").value).split(/\s+/).filter(Boolean);
    const text = (slide) => plain([slide.id, slide.patient, slide.stain, slide.status, slide.state, slide.triage, slide.review?.verdict, slide.failure?.stage].join(" "));
    const by = SORTS[$("sort").value]?.[1] ?? (() => 0);
    this.byPatient = $("sort").value === "patient";
    const names = (a, b) => a.localeCompare(b, undefined, { numeric: true });
    this.shown = this.slides.filter((slide) => words.every((word) => text(slide).includes(word)))
      .sort((a, b) => by(a) - by(b) || (this.byPatient && names(a.patient, b.patient)) || names(a.id, b.id));
    const all = `${this.slides.length} slide${this.slides.length === 1 ? "" : "s"}${this.byPatient ? ` of ${this.patients.size} patients` : ""}`;
    const shown = this.shown.length === this.slides.length ? all : `${this.shown.length} of ${all}`;
    $("list-count").textContent = [shown, this.unfinished].filter(Boolean).join("; ");
    this._fill(PAGE);
  }

  // The first so many of the list; thousands at once would make every keystroke wait.
  _fill(n) {
    const at = this.shown.findIndex((slide) => slide.id === this.current);
    this.n = Math.max(n, Math.ceil((at + 1) / PAGE) * PAGE);
    const begins = (slide, k) => this.byPatient && slide.patient && slide.patient !== this.shown[k - 1]?.patient;
    const items = this.shown.slice(0, this.n).flatMap((slide, k) => [begins(slide, k) && this._patient(slide.patient), this._item(slide)].filter(Boolean));
    const left = this.shown.length - this.n;
    if (left > 0) items.push(el("li", {}, el("button", { type: "button", class: "more", onclick: () => this._fill(this.n + PAGE) }, `Show ${Math.min(left, PAGE)} more`)));
    $("slides").replaceChildren(...items);
  }

  setCurrent(id) {
    this.current = id;
    if (this.shown.findIndex((slide) => slide.id === id) >= this.n) this._fill(this.n);
    for (const link of $("slides").querySelectorAll("a")) {
      const here = link.dataset.id === id;
      if (here) link.setAttribute("aria-current", "true"); else link.removeAttribute("aria-current");
      if (here) link.scrollIntoView({ block: "nearest" });
    }
  }

  step(by) {
    const at = this.shown.findIndex((slide) => slide.id === this.current);
    const next = this.shown[at < 0 ? 0 : at + by];
    if (next) this.open(next.id);
  }

  // The order stays until it is asked for anew: the next slide is the next one also where reviewed slides come last.
  review(id, review) {
    const slide = this.get(id);
    slide.review = review;
    [...$("slides").querySelectorAll("a")].find((link) => link.dataset.id === id)?.parentElement.replaceWith(this._item(slide));
  }

  // The line above a patient's slides.
  _patient(name) {
    const slides = this.patients.get(name) ?? [];
    const n = `${slides.length} slide${slides.length === 1 ? "" : "s"}`;
    return el("li", { class: "patient" }, el("b", {}, name), el("span", { class: "quiet" }, ` ${n}${differ(slides) ? ", called differently" : ""}`));
  }

  _item(slide) {
    const thumb = el("img", { class: "thumb", loading: "lazy", decoding: "async", alt: "", src: slidePath(slide.id, "/thumbnail") });
    thumb.addEventListener("error", () => thumb.replaceWith(el("span", { class: "thumb none" })));
    const said = { failed: `failed: ${slide.failure?.stage}`, segmented: "segmented only", slide: [slide.stain, slide.patient].filter(Boolean).join(" · ") || "not predicted" };
    const call = slide.state === "predicted" ? called(slide) : said[slide.state];
    return el("li", {}, el("a", {
      href: `#slide=${encodeURIComponent(slide.id)}`, "data-id": slide.id, title: slide.id,
      "aria-current": slide.id === this.current ? "true" : null,
      onclick: (event) => { if (event.ctrlKey || event.metaKey || event.shiftKey) return; event.preventDefault(); this.open(slide.id); },
    },
    thumb,
    el("span", { class: "name" }, slide.id),
    el("span", { class: `said ${slide.state === "failed" ? "failed" : "quiet"}` }, call, slide.spoilt > 0.2 ? ` · ${percent(slide.spoilt, 0)} pen or blur` : ""),
    el("span", { class: "marks" },
      el("b", { class: callOf(slide) === slide.status ? slide.status ?? "" : "" }, slide.state === "predicted" ? probability(slide.probability, slide.threshold) : ""),
      slide.review?.verdict ? mark(slide.review) : null)));
  }
}
