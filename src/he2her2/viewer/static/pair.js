// Two stains of a patient side by side. They move together in µm, the one beside turned as its section lies.

import { $, el, length_um, say } from "./dom.js";
import { getJson, putJson, slidePath } from "./server.js";
import { Stage } from "./stage.js";
import { Way } from "./way.js";

const SAVE_MS = 400;
const TURN = 2;
const FROM_POINTS = 2;
const FREE_SCALE_FROM = 3;
const COLOURS = ["#e4572e", "#17698f", "#3a7d2c", "#8a4fff", "#b8860b"];

export class Pair {
  constructor(main, list, writable, onChange, onProblem) {
    Object.assign(this, { main, list, writable, onChange, onProblem });
    Object.assign(this, { stage: null, beside: null, linked: true, way: new Way(), own: false, points: null, pointer: null, opening: 0 });
    main.moved.push(() => this.follow(main));
    main.drawers.push((context) => this._draw(context, main, 0));
    this._listen(main, 0);
    $("partner").addEventListener("change", () => this.open($("partner").value));
    $("link-pair").addEventListener("click", () => this.link(!this.linked));
    $("turn-left").addEventListener("click", () => this.turn(-1));
    $("turn-right").addEventListener("click", () => this.turn(1));
    $("mirror").addEventListener("click", () => this.mirror());
    $("match").addEventListener("click", () => this.match());
    $("lay-again").addEventListener("click", () => this.forget());
  }

  // Offer a slide's partners, and show the one that a link asks for, or go on with two pictures.
  show(slide, asked, lie) {
    this.slide = slide;
    const { partners } = slide, was = Boolean(this.beside);
    $("pair").hidden = $("pair-gap").hidden = !partners.length;
    $("partner").replaceChildren(...partners.map((id) => el("option", { value: id }, `${this.list.get(id)?.stain ?? ""} ${id}`)));
    if (partners.includes(asked)) $("partner").value = asked;
    return this.open(partners.length && (was || partners.includes(asked)) ? $("partner").value : null, Way.ofWords(lie));
  }

  acts() {
    return [
      { keys: ["i"], shown: ["I", "M"], says: "H&E beside IHC, linked or apart", run: () => this.toggle() },
      { keys: ["m"], run: () => this.link(!this.linked) },
      { keys: [","], shown: [",", ".", "Y"], says: "turn the stain beside, mirror it", run: () => this.turn(-1) },
      { keys: ["."], run: () => this.turn(1) },
      { keys: ["y"], run: () => this.mirror() },
      { keys: ["o"], shown: ["O", "R"], says: "lay it by matching points, by its tissue", run: () => this.match() },
      { keys: ["r"], run: () => this.forget() },
    ];
  }

  get isOpen() {
    return Boolean(this.beside && this.stage?.isOpen && this.main.isOpen);
  }

  toggle() {
    if (this.slide?.partners.length) this.open(this.beside ? null : $("partner").value);
  }

  async open(id, asked = null) {
    if (this.points) this.match();
    const turn = ++this.opening;
    this.beside = id;
    $("picture-pair").hidden = $("pair-tools").hidden = !id;
    $("pair").setAttribute("aria-pressed", String(Boolean(id)));
    document.body.classList.toggle("paired", Boolean(id));
    this.onChange();
    if (!id) return;
    let slide, found;
    try {
      slide = await getJson(slidePath(id));
      if (!slide.file) throw new Error(slide.problems.join(" "));
    } catch (error) {
      this.onProblem(error);
      return;
    }
    if (turn !== this.opening) return;
    if (!this.stage) {
      this.stage = new Stage($("picture-pair"));
      this.stage.moved.push(() => this.follow(this.stage));
      this.stage.drawers.push((context) => this._draw(context, this.stage, 1));
      this._listen(this.stage, 1);
    }
    await this.stage.open(id, slide.file);
    try {
      found = await getJson(this._path());
    } catch (error) {
      this.onProblem(error);
      return;
    }
    if (turn !== this.opening) return;
    this.linked = true;
    this._showLinked();
    this._lay(asked ?? new Way(found), asked !== null);
    this._tell(asked ? "As the link says." : {
      kept: "As a reviewer laid it.",
      found: "Laid by its tissue.",
      centred: "Centre on centre: the tissue of the two does not match well enough. Mark matching points (O).",
    }[found.how]);
  }

  link(linked) {
    if (!this.isOpen) return;
    this.linked = linked;
    if (linked) this._set(this.way.about(this._centre(0), this._centre(1), this._ownScale()));
    this._showLinked();
  }

  turn(steps) {
    if (this.isOpen) this._change({ turn: this.way.turn - TURN * steps * (this.way.mirrored ? -1 : 1) });
  }

  mirror() {
    if (this.isOpen) this._change({ mirrored: !this.way.mirrored });
  }

  // Take places that a reviewer marks in both pictures, or leave off.
  match() {
    if (!this.isOpen && !this.points) return;
    this.points = this.points ? null : [[], []];
    this.main.claimed = this.stage.claimed = Boolean(this.points);
    $("match").setAttribute("aria-pressed", String(Boolean(this.points)));
    for (const stage of [this.main, this.stage]) {
      stage.element.classList.toggle("drawing", Boolean(this.points));
      stage.redraw();
    }
    if (this.points) this._tell("Click a place, and the same place in the other picture; two places at least.");
    else {
      this.follow(this.main);
      this._tell(this.matched ?? "");
    }
    this.matched = null;
  }

  // What is kept is forgotten: the tissue says again how the two lie.
  async forget() {
    if (!this.isOpen) return;
    clearTimeout(this.timer);
    if (this.writable) await this._put(null, this._path());
    this.open(this.beside);
  }

  follow(leader) {
    if (this.following || !this.isOpen || !this.linked || this.points) return;
    this.following = true;
    const { x, y, zoom } = leader.view(), [p, q] = this._mpp(), { way } = this;
    const to = (point, mpp) => ({ x: point[0] / mpp, y: point[1] / mpp });
    if (leader === this.main) this.stage.goTo({ ...to(way.there([x * p, y * p]), q), zoom: (zoom * p * way.scale) / q }, true, false);
    else this.main.goTo({ ...to(way.back([x * q, y * q]), p), zoom: (zoom * q) / way.scale / p }, true, false);
    this.following = false;
  }

  inWords() {
    return this.own ? this.way.inWords() : null;
  }

  _change(changes) {
    this._set(this.way.about(this._centre(0), this._centre(1), changes));
  }

  _set(way) {
    this._lay(way, true);
    this._tell("");
    clearTimeout(this.timer);
    if (!this.writable) return;
    const path = this._path(); // of these two slides, whatever is shown when it is saved
    this.timer = setTimeout(() => this._put(way, path), SAVE_MS);
  }

  _path() {
    return slidePath(this.slide.id, `/beside/${encodeURIComponent(this.beside)}`);
  }

  async _put(way, path) {
    try {
      await putJson(path, way);
    } catch (error) {
      this._tell(`Not kept: ${error.message}`);
    }
  }

  _lay(way, own) {
    const turn = ((((way.turn + 180) % 360) + 360) % 360) - 180;
    this.way = new Way({ ...way, turn });
    this.own = own;
    this.stage.setTurn(-turn, way.mirrored);
    $("mirror").setAttribute("aria-pressed", String(way.mirrored));
    this.follow(this.main);
    this.main.redraw();
    this.stage.redraw();
    this.onChange();
  }

  _tell(text) {
    const { turn, mirrored } = this.way;
    const lies = [Math.abs(turn) >= 0.05 && `turned ${+turn.toFixed(1)}°`, mirrored && "mirrored"].filter(Boolean).join(", ");
    $("pair-said").textContent = [text, lies && `The section beside is ${lies}.`].filter(Boolean).join(" ");
    say($("pair-said").textContent);
  }

  _showLinked() {
    $("link-pair").setAttribute("aria-pressed", String(this.linked));
    $("link-pair").textContent = this.linked ? "Linked" : "Apart: move, then link";
  }

  _listen(stage, side) {
    const placeOf = ({ clientX, clientY }) => { // of the browser's own event: OpenSeadragon mirrors the place in its own
      const { left, top } = stage.element.getBoundingClientRect(), mpp = this._mpp()[side];
      return stage.toSlide(clientX - left, clientY - top).map((px) => px * mpp);
    };
    stage.osd.addHandler("canvas-click", (event) => {
      if (!this.points || !event.quick) return;
      event.preventDefaultAction = true;
      this.points[side].push(placeOf(event.originalEvent));
      this._fit();
    });
    stage.element.addEventListener("pointermove", (event) => {
      if (!this.isOpen) return;
      const place = placeOf(event);
      this.pointer = { side: 1 - side, place: side ? this.way.back(place) : this.way.there(place) };
      (side ? this.main : this.stage).redraw();
    });
    stage.element.addEventListener("pointerleave", () => {
      this.pointer = null;
      if (this.stage) [this.main, this.stage].forEach((one) => one.redraw());
    });
  }

  _fit() {
    const [here, there] = this.points, n = Math.min(here.length, there.length);
    if (n >= FROM_POINTS && here.length === there.length) {
      const way = this.way.through(here, there, n >= FREE_SCALE_FROM || !this._toScale());
      this._set(way);
      const miss = n >= FREE_SCALE_FROM ? `, which it meets within ${length_um(way.miss(here, there))} on average` : "";
      this.matched = `Laid by ${n} places${miss}.`;
      this._tell(`${this.matched} Mark more, or leave with Esc.`);
    }
    [this.main, this.stage].forEach((one) => one.redraw());
  }

  // Marked places, and where the pointer of the other picture is.
  _draw(context, stage, side) {
    if (!this.isOpen) return;
    const mpp = this._mpp()[side], at = (place) => stage.toScreen(place[0] / mpp, place[1] / mpp);
    const ring = (x, y, radius, colour) => {
      for (const [width, stroke] of [[4, "rgb(255 255 255 / .9)"], [2, colour]]) {
        context.beginPath();
        context.arc(x, y, radius, 0, 2 * Math.PI);
        context.lineWidth = width;
        context.strokeStyle = stroke;
        context.stroke();
      }
    };
    this.points?.[side].forEach((place, i) => {
      const [x, y] = at(place);
      ring(x, y, 9, COLOURS[i % COLOURS.length]);
      context.fillStyle = COLOURS[i % COLOURS.length];
      context.font = "600 12px system-ui, sans-serif";
      context.fillText(String(i + 1), x + 13, y + 4);
    });
    if (this.pointer?.side === side && this.linked && !this.points) ring(...at(this.pointer.place), 7, "#6a2c70");
  }

  _centre(side) {
    const { x, y } = [this.main, this.stage][side].view(), mpp = this._mpp()[side];
    return [x * mpp, y * mpp];
  }

  // Of slides without a scale, that at which the reviewer looks at them.
  _ownScale() {
    const [p, q] = this._mpp();
    return this._toScale() ? {} : { scale: (this.stage.view().zoom * q) / (this.main.view().zoom * p) };
  }

  _toScale() {
    return Boolean(this.main.file.mpp && this.stage.file.mpp);
  }

  _mpp() {
    return [this.main.file?.mpp ?? 1, this.stage?.file?.mpp ?? 1];
  }
}
