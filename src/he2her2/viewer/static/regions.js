// Regions that a reviewer draws: GeoJSON features in level-0 px, saved after each change.

import { $, area_mm2, el, say } from "./dom.js";
import { getJson, putJson, slidePath } from "./server.js";

const OSD = window.OpenSeadragon;
const COLOURS = { "tumour": [0, 122, 61], "cut out": [190, 30, 45], "not used": [30, 100, 180] };
const NEAR_PX = 9;
const STEP_PX = 3;

const className = (feature) => {
  const found = feature.properties.classification;
  return (typeof found === "string" ? found : found?.name ?? found?.names?.join(": ")) || "(no class)";
};

function polygons(feature) {
  const { type, coordinates } = feature.geometry;
  if (type === "Polygon") return [coordinates];
  return type === "MultiPolygon" ? coordinates : [];
}

const ringArea = (ring) => ring.slice(0, -1).reduce((sum, [x, y], i) => sum + x * ring[i + 1][1] - ring[i + 1][0] * y, 0) / 2;

function area(feature) {
  return polygons(feature).reduce((sum, [outside, ...holes]) =>
    sum + Math.abs(ringArea(outside)) - holes.reduce((cut, hole) => cut + Math.abs(ringArea(hole)), 0), 0);
}

const positions = (coordinates) => (typeof coordinates[0] === "number" ? [coordinates] : coordinates.flatMap(positions));

function box(feature) {
  const points = positions(feature.geometry.coordinates);
  const [xs, ys] = [points.map((p) => p[0]), points.map((p) => p[1])];
  return [Math.min(...xs), Math.min(...ys), Math.max(...xs), Math.max(...ys)];
}

function contains(feature, x, y) {
  let inside = false;
  for (const ring of polygons(feature).flat()) {
    for (let i = 1; i < ring.length; i++) {
      const [x0, y0] = ring[i - 1], [x1, y1] = ring[i];
      if ((y0 > y) !== (y1 > y) && x < x0 + ((y - y0) * (x1 - x0)) / (y1 - y0)) inside = !inside;
    }
  }
  return inside;
}

export class Regions {
  constructor(stage, classes, layers, onProblem) {
    Object.assign(this, { stage, layers, onProblem });
    this.uses = Object.fromEntries(classes.map(({ name, use }) => [name, use]));
    this.features = [];
    this.unsaved = new Set();
    this.tool = null;
    this.drawn = [];
    this.selected = -1;
    $("region-class").replaceChildren(...classes.map(({ name, use }) =>
      el("option", { value: name }, `${name} · ${{ "tumour": "counts as tumour", "cut out": "cut out of tumour", "not used": "a note only" }[use]}`)));
    stage.drawers.push((context, frame) => this.draw(context, frame));
    const on = (name, call) => stage.osd.addHandler(name, call);
    on("canvas-click", (event) => this._click(event));
    on("canvas-double-click", (event) => { if (this.tool === "polygon") { event.preventDefaultAction = true; this.finish(); } });
    on("canvas-press", (event) => this._press(event));
    on("canvas-drag", (event) => this._drag(event));
    on("canvas-release", () => this._release());
    stage.element.addEventListener("pointermove", (event) => this._hover(event));
    $("region-view").addEventListener("click", () => this.takeView());
    $("region-class").addEventListener("change", () => this._reclass());
  }

  async open(slide, writable) {
    const file = { id: slide.id };
    this.file = file;
    this.mpp = slide.file?.mpp;
    this.features = [];
    this.selected = -1;
    this._allow(false);
    this.use(null);
    this.note(writable ? "" : "Regions and verdicts are not kept: start the viewer with --annotations FOLDER.");
    if (slide.file) {
      try {
        if ([this.sent, ...this.unsaved].some((one) => one?.id === slide.id)) await this.saving; // drawn a moment ago
        Object.assign(file, await getJson(slidePath(slide.id, "/regions")));
        if (this.file !== file) return;
        this.features = file.collection.features;
        this._allow(writable);
      } catch (error) {
        if (this.file !== file) return;
        this.note(error.message);
      }
    }
    this.show();
    this.stage.redraw();
  }

  _allow(writable) {
    this.writable = writable;
    $("region-view").disabled = !writable;
    document.querySelectorAll("[data-tool]").forEach((button) => { button.disabled = !writable; });
  }

  note(text) {
    $("saved").textContent = text;
  }

  use(tool) {
    this.tool = this.writable && this.tool !== tool ? tool : null;
    this.drawn = [];
    document.querySelectorAll("[data-tool]").forEach((button) => button.setAttribute("aria-pressed", String(button.dataset.tool === this.tool)));
    this.stage.element.classList.toggle("drawing", this.tool !== null);
    if (this.tool) {
      say({ polygon: "Polygon: click its corners, Enter closes it, Escape leaves", freehand: "Freehand: drag around the region", rectangle: "Rectangle: drag from corner to corner" }[this.tool]);
    }
    this.stage.redraw();
  }

  finish() {
    const ring = this.drawn.filter((point, i) => !i || point[0] !== this.drawn[i - 1][0] || point[1] !== this.drawn[i - 1][1]);
    this.drawn = [];
    this.pointer = null;
    if (ring.length >= 3 && Math.abs(ringArea([...ring, ring[0]])) > 1) this.add(ring);
    else if (ring.length) this.note("Not drawn: this line encloses no area.");
    this.stage.redraw();
  }

  add(ring) {
    const points = ring.map(([x, y]) => [Math.round(x), Math.round(y)]);
    this.features.push({
      type: "Feature",
      id: crypto.randomUUID?.() ?? `region-${Date.now()}`,
      geometry: { type: "Polygon", coordinates: [[...points, points[0]]] },
      properties: { objectType: "annotation", classification: this._class($("region-class").value) },
    });
    this.selected = this.features.length - 1;
    this._changed(`Region drawn as ${$("region-class").value}`);
  }

  takeView() {
    if (!this.writable || !this.stage.isOpen) return;
    const { clientWidth: w, clientHeight: h } = this.stage.element;
    const [[x0, y0], [x1, y1]] = [this.stage.toSlide(0, 0), this.stage.toSlide(w, h)];
    const [right, bottom] = this.stage.file.size;
    const inside = [Math.max(x0, 0), Math.max(y0, 0), Math.min(x1, right), Math.min(y1, bottom)];
    if (inside[0] < inside[2] && inside[1] < inside[3]) this.add(corners(...inside));
  }

  remove(index = this.selected) {
    if (!this.writable || !this.features[index]) return;
    this.features.splice(index, 1);
    this.selected = -1;
    this._changed("Region removed");
  }

  select(index) {
    this.selected = index;
    if (this.features[index] && className(this.features[index]) in this.uses) $("region-class").value = className(this.features[index]);
    this.show();
    this.stage.redraw();
  }

  goTo(index) {
    const [left, top, right, bottom] = box(this.features[index]);
    const { clientWidth, clientHeight } = this.stage.element;
    this.select(index);
    const zoom = Math.max((right - left) / clientWidth, (bottom - top) / clientHeight) * 1.4;
    this.stage.goTo({ x: (left + right) / 2, y: (top + bottom) / 2, zoom: Math.max(zoom, 0.5) });
  }

  _class(name) {
    return { name, color: COLOURS[this.uses[name]] ?? COLOURS["not used"] };
  }

  _reclass() {
    const feature = this.features[this.selected];
    if (!feature || !this.writable) return;
    feature.properties.classification = this._class($("region-class").value);
    this._changed(`Region is ${$("region-class").value} now`);
  }

  _changed(said) {
    say(said);
    this.show();
    this.stage.redraw();
    this.save();
  }

  save() {
    this.unsaved.add(this.file);
    this.saving ??= this._saveAll().finally(() => { this.saving = null; });
  }

  // One save at a time; what changes meanwhile, of this slide or another, is saved after it.
  async _saveAll() {
    for (const file of this.unsaved) {
      const said = (text) => { if (this.file === file) this.note(text); };
      this.unsaved.delete(file);
      this.sent = file;
      said("Saving…");
      try {
        const { version } = await putJson(slidePath(file.id, `/regions?version=${encodeURIComponent(file.version)}`), file.collection);
        file.version = version;
        said("Saved");
      } catch (error) {
        said("Not saved");
        this.onProblem(`${file.id}: ${error.message.replace(`${file.id}: `, "")}`);
      }
    }
    this.sent = null;
  }

  _at(event) {
    return this.stage.toSlide(event.position.x, event.position.y);
  }

  _press(event) {
    this.grabbed = null;
    const point = this._at(event);
    if (this.tool === "freehand" || this.tool === "rectangle") { this.drawn = [point]; return; }
    const feature = this.features[this.selected];
    if (this.tool || !feature || !this.writable || feature.geometry.type !== "Polygon") return;
    const near = NEAR_PX / this.stage.transform().scale;
    feature.geometry.coordinates.forEach((ring) => ring.slice(0, -1).forEach(([x, y], i) => {
      if (Math.hypot(x - point[0], y - point[1]) < near) this.grabbed = { ring, i };
    }));
  }

  _drag(event) {
    const point = this._at(event);
    if (this.grabbed) {
      event.preventDefaultAction = true;
      const { ring, i } = this.grabbed;
      ring[i] = point.map(Math.round);
      if (i === 0) ring[ring.length - 1] = ring[0];
      this.grabbed.moved = true;
    } else if (this.tool === "freehand" && this.drawn.length) {
      event.preventDefaultAction = true;
      const [x, y] = this.drawn.at(-1);
      if (Math.hypot(x - point[0], y - point[1]) * this.stage.transform().scale > STEP_PX) this.drawn.push(point);
    } else if (this.tool === "rectangle" && this.drawn.length) {
      event.preventDefaultAction = true;
      this.drawn = corners(...this.drawn[0], ...point);
    } else return;
    this.stage.redraw();
  }

  _release() {
    if (this.grabbed?.moved) this._changed("Corner moved");
    this.grabbed = null;
    if (this.tool === "freehand" || this.tool === "rectangle") this.finish();
  }

  _click(event) {
    if (!event.quick || this.stage.claimed) return;
    event.preventDefaultAction = true;
    const point = this._at(event);
    if (this.tool === "polygon") {
      this.drawn.push(point);
      this.stage.redraw();
    } else if (!this.tool && this.layers.get("regions")?.on) {
      const found = this.features.findLastIndex((feature) => contains(feature, ...point));
      if (found !== this.selected) this.select(found);
    }
  }

  _hover(event) {
    if (this.tool !== "polygon" || !this.drawn.length) return;
    const { left, top } = this.stage.element.getBoundingClientRect();
    this.pointer = this.stage.toSlide(event.clientX - left, event.clientY - top);
    this.stage.redraw();
  }

  draw(context, { scale, dx, dy }) {
    const path = (ring) => ring.forEach(([x, y], i) => context[i ? "lineTo" : "moveTo"](dx + x * scale, dy + y * scale));
    if (this.layers.get("regions")?.on && !this.layers.muted) {
      this.features.forEach((feature, index) => {
        const colour = COLOURS[this.uses[className(feature)]] ?? COLOURS["not used"];
        context.beginPath();
        polygons(feature).flat().forEach(path);
        context.fillStyle = `rgb(${colour.join(" ")} / ${index === this.selected ? 0.16 : 0.06})`;
        context.fill("evenodd");
        context.lineWidth = index === this.selected ? 3 : 2;
        context.strokeStyle = `rgb(${colour.join(" ")})`;
        context.stroke();
        if (index !== this.selected || feature.geometry.type !== "Polygon" || !this.writable) return;
        for (const [x, y] of feature.geometry.coordinates.flat()) {
          context.fillStyle = "#fff";
          context.fillRect(dx + x * scale - 3, dy + y * scale - 3, 6, 6);
          context.strokeRect(dx + x * scale - 3, dy + y * scale - 3, 6, 6);
        }
      });
    }
    if (this.drawn.length) {
      context.beginPath();
      path(this.pointer && this.tool === "polygon" ? [...this.drawn, this.pointer] : this.drawn);
      if (this.tool === "rectangle") context.closePath();
      context.lineWidth = 2;
      context.strokeStyle = "#fff";
      context.stroke();
      context.setLineDash([5, 4]);
      context.strokeStyle = "#111";
      context.stroke();
      context.setLineDash([]);
    }
  }

  show() {
    $("region-class-label").textContent = this.features[this.selected] ? "Class of the selected region" : "Draw as";
    $("regions").replaceChildren(...this.features.map((feature, index) => {
      const name = className(feature), colour = COLOURS[this.uses[name]] ?? COLOURS["not used"];
      const size = this.mpp ? area_mm2((area(feature) * this.mpp ** 2) / 1e6) : `${Math.round(area(feature))} px²`;
      const own = feature.properties.name;
      const label = own ? `${own} (${name})` : name;
      return el("li", {},
        el("span", { class: "swatch", style: { background: `rgb(${colour.join(" ")})` } }),
        el("button", { type: "button", class: "go", "aria-pressed": String(index === this.selected), title: "Go to this region", onclick: () => this.goTo(index) }, label),
        el("span", { class: "quiet" }, size),
        el("button", { type: "button", "aria-label": `Delete region ${index + 1}, ${name}`, disabled: !this.writable, onclick: () => this.remove(index) }, "Delete"),
      );
    }));
  }
}

const corners = (x0, y0, x1, y1) => [[x0, y0], [x1, y0], [x1, y1], [x0, y1]];
