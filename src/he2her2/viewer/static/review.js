// The verdict on the slide that is shown, with a comment: saved one after the other, each on top of the last one seen.

import { callOf } from "./case.js";
import { $, el, probability, remember, remembered, say } from "./dom.js";
import { putJson, slidePath } from "./server.js";

const KEYS = ["A", "X", "U"];

// The verdict on the result that is shown; "" where none was given, or one on another result.
const given = (review) => (review?.of_this_result ? review.verdict : "");

const givenBy = ({ reviewer, time }) => ["Given", reviewer && `by ${reviewer}`, time && `on ${time.replace(/T(\d\d:\d\d).*\+00:00$/, " $1 UTC")}`].filter(Boolean).join(" ");

export class Review {
  constructor(list, run, note, onProblem) {
    Object.assign(this, { list, run, note, onProblem, slide: null, saving: Promise.resolve(), sent: null });
    this.buttons = run.verdicts.map((verdict, i) => el("button", {
      type: "button", "aria-pressed": "false", disabled: !run.writable, title: `Key ${KEYS[i]}`, onclick: () => this.give(verdict),
    }, verdict));
    $("verdicts").replaceChildren(...this.buttons);
    // The comment keeps the focus until the click, which then saves both: else it would be saved by itself before.
    $("verdicts").addEventListener("mousedown", (event) => event.preventDefault());
    for (const id of ["comment", "reviewer"]) $(id).disabled = !run.writable;
    $("reviewer").value = remembered("reviewer") ?? "";
    $("reviewer").addEventListener("change", () => remember("reviewer", $("reviewer").value.trim()));
    $("comment").addEventListener("change", () => this.keepComment());
    window.addEventListener("pagehide", () => this.keepComment());
  }

  show(slide) {
    this.keepComment(); // of the slide before, as when Back was pressed while it was typed
    this.slide = slide;
    $("comment").value = this._last().comment;
    this._showVerdict();
  }

  give(verdict) {
    if (!this.run.writable || !this.slide || $("verdict-part").hidden) return;
    if (this.list.current !== this.slide.id) {
      this.onProblem(`${this.list.current} was not shown yet: give the verdict again.`);
      return;
    }
    const last = this._last(), comment = $("comment").value;
    this._save(verdict === last.verdict && comment === last.comment ? "" : verdict, comment);
    for (const id of ["comment", "reviewer"]) $(id).blur(); // the next key is no letter of theirs
  }

  keepComment() {
    if (!this.run.writable || !this.slide) return;
    const last = this._last();
    if ($("comment").value !== last.comment) this._save(last.verdict, $("comment").value);
  }

  // What was given last, whether it is kept yet or not.
  _last() {
    if (this.sent?.id === this.slide.id) return this.sent;
    const { review } = this.list.get(this.slide.id);
    return { verdict: given(review), comment: review?.comment ?? "" };
  }

  _save(verdict, comment) {
    const sent = { id: this.slide.id, verdict, comment, reviewer: $("reviewer").value.trim() };
    this.sent = sent;
    this._showVerdict();
    this.saving = this.saving.then(() => this._put(sent));
  }

  async _put(sent) {
    const { id, ...said } = sent, slide = this.list.get(id);
    const seen = { call: callOf(slide) ?? "", probability: slide.probability ?? null, seen: slide.review?.version ?? "none" };
    try {
      const kept = await putJson(slidePath(id, "/verdict"), { ...said, ...seen }, true);
      this.list.review(id, kept);
      if (this.slide.id === id) this.note(kept?.verdict ? `Verdict saved: ${kept.verdict}` : "Saved");
      say(kept?.verdict ? `Verdict: ${kept.verdict}` : "Verdict removed");
    } catch (error) {
      this.onProblem(`${id}: ${error.message.replace(`${id}: `, "")}`);
    }
    if (this.sent === sent) this.sent = null;
    this._showVerdict();
  }

  _showVerdict() {
    const { verdict } = this._last(), { review } = this.list.get(this.slide.id);
    $("review-section").hidden = !this.slide.file && !review;
    $("verdict-part").hidden = this.slide.state !== "predicted" && !review;
    this.buttons.forEach((button, i) => button.setAttribute("aria-pressed", String(this.run.verdicts[i] === verdict)));
    const call = callOf(this.slide);
    $("judged").textContent = call ? `On the call of this slide${this.slide.patient_call ? ", not of the patient" : ""}: ${call}` : "";
    $("given-by").textContent = review ? givenBy(review) : "";
    const outdated = review?.verdict && !review.of_this_result;
    $("outdated").hidden = !outdated;
    $("outdated").textContent = outdated ? `"${review.verdict}" was given on another result: ${review.call}, ${probability(review.probability)}. Judge this one anew.` : "";
  }
}
