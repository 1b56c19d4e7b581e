// What is laid over the slide: pictures, tile numbers, selected tiles, samples. Each has an opacity and can be off.

import { $, el, number, rgb } from "./dom.js";
import { getJson, slidePath } from "./server.js";

const SAMPLE_PX = 2.5;
const SMALL_TILE_PX = 60;
const NEAR_PX = 120;
const UNREAD = " (cannot be read)";

export class Layers {
  constructor(stage, onChange) {
    this.stage = stage;
    this.onChange = onChange;
    this.list = [];
    this.muted = false;
    this.colourBy = "scores";
    this.chosen = {}; // what the user set, kept from slide to slide
    stage.drawers.push((context, frame) => this.draw(context, frame));
  }

  // The layers of a slide; `wanted` is what a link asks for, by key.
  set(slide, tiles, wanted = null) {
    this.slide = slide;
    this.tiles = tiles;
    this.list = [];
    const add = (key, title, on, opacity, more) => {
      const kept = wanted ? { on: key in wanted, opacity: wanted[key] ?? opacity } : this.chosen[key];
      this.list.push({ key, title, on: kept?.on ?? on, opacity: kept?.opacity ?? opacity, ...more });
    };
    if (tiles) {
      add("tiles", "Tiles by", true, 0.45, { colour: [253, 174, 97], draw: this._tiles });
      if (tiles.hasSelected) add("selected", "Selected tiles", true, 0.9, { colour: [20, 20, 20], draw: this._selected });
    }
    for (const picture of slide.pictures) {
      const on = picture.key === "tumour" && !tiles;
      add(picture.key, picture.title, on, 0.4, { colour: picture.colour, px: picture.px_l0, draw: this._picture });
    }
    if (slide.samples) add("samples", `Samples of the map (${slide.samples})`, false, 0.9, { colour: [120, 0, 140], draw: this._samples });
    add("regions", "Drawn regions", true, 1, { colour: [0, 122, 61], draw: null });
    this.show();
    this.list.filter((layer) => layer.on).forEach((layer) => this._fetch(layer));
  }

  get(key) {
    return this.list.find((layer) => layer.key === key);
  }

  toggle(key) {
    const layer = this.get(key);
    if (layer) this._change(layer, { on: !layer.on });
    return layer;
  }

  fade(by) {
    for (const layer of this.list.filter((one) => one.on && one.key !== "regions")) {
      this._change(layer, { opacity: Math.min(1, Math.max(0.05, layer.opacity + by)) });
    }
  }

  mute(muted) {
    if (this.muted === muted) return;
    this.muted = muted;
    this.stage.redraw();
  }

  _change(layer, change) {
    Object.assign(layer, change);
    this.chosen[layer.key] = { on: layer.on, opacity: layer.opacity };
    if (layer.on) this._fetch(layer);
    this.show();
    this.stage.redraw();
    this.onChange();
  }

  async _fetch(layer) {
    const slide = this.slide;
    try {
      if (layer.draw === this._picture && !layer.image) {
        layer.image = new Image();
        layer.image.src = slidePath(slide.id, `/layers/${layer.key}`);
        await layer.image.decode();
      } else if (layer.draw === this._samples && !layer.points) {
        layer.points = await getJson(slidePath(slide.id, "/samples"));
      } else return;
    } catch {
      layer.image = null;
      layer.title = `${layer.title.replace(UNREAD, "")}${UNREAD}`;
      this.show();
    }
    if (this.slide === slide) this.stage.redraw();
  }

  draw(context, frame) {
    if (this.muted) return;
    const height = (layer) => [this._picture, this._tiles, this._samples, this._selected].indexOf(layer.draw);
    for (const layer of this.list.filter((one) => one.on && one.draw).sort((a, b) => height(a) - height(b))) {
      context.save();
      context.globalAlpha = layer.opacity;
      layer.draw.call(this, context, frame, layer);
      context.restore();
    }
  }

  _picture(context, { scale, dx, dy }, layer) {
    if (!layer.image?.naturalWidth) return;
    const px = layer.px * scale;
    context.imageSmoothingEnabled = px < 1;
    context.drawImage(layer.image, dx, dy, layer.image.naturalWidth * px, layer.image.naturalHeight * px);
  }

  // Where a tile fills the screen, its cells matter more than its colour.
  _tiles(context, { scale, dx, dy }) {
    const { tiles } = this;
    const px = tiles.cell * scale, near = Math.min(1, Math.max(0, (tiles.side * scale - NEAR_PX) / (3 * NEAR_PX)));
    context.globalAlpha *= 1 - 0.65 * near;
    context.imageSmoothingEnabled = px < 1;
    context.drawImage(
      tiles.picture(tiles.choice(this.colourBy)),
      dx + tiles.left * scale, dy + tiles.top * scale, tiles.width * px, tiles.height * px,
    );
  }

  // Near by each tile has its frame; from afar the frames would be all that one sees, so one line goes around them.
  _selected(context, { scale, dx, dy, width, height }) {
    const { tiles } = this;
    const px = tiles.cell * scale, side = tiles.side * scale;
    const path = new Path2D();
    path.addPath(tiles.outline(), new DOMMatrix([px, 0, 0, px, dx + tiles.left * scale, dy + tiles.top * scale]));
    this._stroke(context, path, side < SMALL_TILE_PX ? 1.2 : 2);
    if (side < SMALL_TILE_PX || tiles.span === 1) return;
    const frames = new Path2D();
    for (const index of tiles.deciding) {
      const [x, y] = tiles.origin(index);
      const [left, top] = [dx + x * scale, dy + y * scale];
      if (left < width && top < height && left + side > 0 && top + side > 0) frames.rect(left, top, side, side);
    }
    context.lineWidth = 0.7;
    context.strokeStyle = "rgb(20 20 20 / .55)";
    context.stroke(frames);
  }

  _stroke(context, path, thin) {
    context.lineJoin = "round";
    context.lineWidth = thin + 2;
    context.strokeStyle = "rgb(255 255 255 / .85)";
    context.stroke(path);
    context.lineWidth = thin;
    context.strokeStyle = "rgb(20 20 20)";
    context.stroke(path);
  }

  _samples(context, { scale, dx, dy, width, height }, layer) {
    for (const [x, y, probability] of layer.points ?? []) {
      const [left, top] = [dx + x * scale, dy + y * scale];
      if (left < -SAMPLE_PX || top < -SAMPLE_PX || left > width + SAMPLE_PX || top > height + SAMPLE_PX) continue;
      context.beginPath();
      context.arc(left, top, SAMPLE_PX, 0, 2 * Math.PI);
      context.fillStyle = "#fff";
      context.fill();
      context.fillStyle = rgb(layer.colour, probability);
      context.fill();
      context.lineWidth = 0.8;
      context.strokeStyle = rgb(layer.colour, 0.7);
      context.stroke();
    }
  }

  show() {
    const focused = document.activeElement?.id;
    $("layers").replaceChildren(...this.list.map((layer, i) => this._row(layer, i)));
    if (focused) $(focused)?.focus();
    this._legend();
  }

  _row(layer, i) {
    const id = `layer-${layer.key}`;
    const name = layer.key === "tiles"
      ? el("select", {
        id: "colour-by", "aria-label": "Colour tiles by",
        onchange: (event) => { this.colourBy = event.target.value; this.show(); this.stage.redraw(); this.onChange(); },
      }, this.tiles.choices.map((one) => el("option", { value: one.key, selected: one.key === this.tiles.choice(this.colourBy).key }, one.title)))
      : null;
    return el("li", {},
      el("input", { id, type: "checkbox", checked: layer.on, onchange: () => this.toggle(layer.key) }),
      el("span", { class: "swatch", style: { background: layer.key === "tiles" ? this.tiles.gradient(this.tiles.choice(this.colourBy)) : rgb(layer.colour) } }),
      el("label", { for: id }, layer.title),
      layer.key === "regions" ? el("span") : el("input", {
        id: `${id}-opacity`, type: "range", min: "0.05", max: "1", step: "0.05", value: String(layer.opacity), "aria-label": `Opacity of ${layer.title}`,
        oninput: (event) => {
          layer.opacity = Number(event.target.value);
          this.chosen[layer.key] = { on: layer.on, opacity: layer.opacity };
          this.stage.redraw();
          this.onChange();
        },
      }),
      el("kbd", { "aria-hidden": "true" }, i < 9 ? String(i + 1) : ""),
      name,
    );
  }

  _legend() {
    const layer = this.get("tiles");
    if (!this.tiles || !layer?.on) return $("legend").replaceChildren();
    const choice = this.tiles.choice(this.colourBy);
    const [low, high] = this.tiles.range(choice);
    const ends = choice.column.name === "scores" ? ["0", "1+", "2+", "3+"] : [low, (low + high) / 2, high].map((v) => +v.toPrecision(3));
    $("legend").replaceChildren(
      el("div", { class: "ramp", style: { background: this.tiles.gradient(choice) } }),
      el("div", { class: "ends" }, ends.map((end) => el("span", {}, String(end)))),
    );
  }

  // For a link: what is on, with its opacity in percent.
  inWords() {
    const on = this.list.filter((layer) => layer.on).map((layer) => `${layer.key}:${Math.round(100 * layer.opacity)}`);
    return on.join(",") || "none";
  }

  tileBars(index) {
    const logits = this.tiles.columns.find((column) => column.name === "logits" && column.width === 4);
    if (!logits) return null;
    const values = Array.from({ length: 4 }, (_, k) => this.tiles.values.logits[4 * index + k]);
    const most = Math.max(...values), shares = values.map((value) => Math.exp(value - most));
    const total = shares.reduce((a, b) => a + b);
    return el("div", { class: "bars", role: "table", "aria-label": "Logits by IHC score" }, ["0", "1+", "2+", "3+"].map((name, k) => el("div", { role: "row", style: { display: "contents" } },
      el("span", { role: "rowheader" }, name),
      el("span", { role: "cell" }, el("span", { class: "bar", style: { display: "block", width: `${100 * shares[k] / total}%`, background: rgb(this.tiles.scoreColours[k]) } })),
      el("span", { role: "cell" }, number(values[k], 2)),
    )));
  }
}
