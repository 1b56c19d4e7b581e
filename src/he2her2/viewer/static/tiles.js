// The scored tiles of a slide: numbers by column, a picture of any of them, and the tile under a point.

import { getFloats, slidePath } from "./server.js";

const MAX_CELLS = 1 << 24;
const DIVERGING = [[33, 102, 172], [146, 197, 222], [247, 247, 247], [244, 165, 130], [178, 24, 43]];
const SEQUENTIAL = [[68, 1, 84], [59, 82, 139], [33, 145, 140], [94, 201, 98], [253, 231, 37]];

export class Tiles {
  constructor(id, described, scoreColours) {
    this.id = id;
    Object.assign(this, { n: described.n, side: described.side_l0, mpp: described.mpp, sidePx: described.side_px });
    this.columns = described.columns;
    this.scoreColours = Object.values(scoreColours);
    this.values = {};
    this.pictures = new Map();
  }

  async load() {
    const get = (name) => getFloats(slidePath(this.id, `/columns/${encodeURIComponent(name)}`));
    const names = ["origins", ...this.columns.map((column) => column.name)];
    const found = await Promise.all(names.map(get));
    names.forEach((name, i) => { this.values[name] = found[i]; });
    this._findLattice();
    this._rank();
    return this;
  }

  origin(index) {
    return [this.values.origins[2 * index], this.values.origins[2 * index + 1]];
  }

  // What tiles can be coloured by: every column but the selection, a column of several numbers one by one.
  get choices() {
    return this.columns.filter((column) => column.name !== "selected").flatMap((column) => {
      if (column.width === 1) return [{ key: column.name, title: column.title, column, at: 0 }];
      const classes = ["0", "1+", "2+", "3+"];
      return Array.from({ length: column.width }, (_, at) => ({
        key: `${column.name}.${at}`, column, at,
        title: `${column.title.replace(/s$/, "")} ${column.width === 4 ? classes[at] : at}`,
      }));
    });
  }

  choice(key) {
    return this.choices.find((one) => one.key === key) ?? this.choices.find((one) => one.key === "scores") ?? this.choices[0];
  }

  value(choice, index) {
    return this.values[choice.column.name][index * choice.column.width + choice.at];
  }

  // From least to most; numbers on both sides of 0 as far to either side.
  range(choice) {
    const { name, low, high } = choice.column;
    if (name === "scores") return [0, 3];
    const far = Math.max(-low, high);
    return low < 0 && high > 0 ? [-far, far] : [low, high];
  }

  stops(choice) {
    if (choice.column.name === "scores") return this.scoreColours;
    return choice.column.low < 0 && choice.column.high > 0 ? DIVERGING : SEQUENTIAL;
  }

  colour(choice, value) {
    const [low, high] = this.range(choice);
    const stops = this.stops(choice);
    const place = high > low ? Math.min(Math.max((value - low) / (high - low), 0), 1) * (stops.length - 1) : 0;
    const i = Math.min(Math.floor(place), stops.length - 2);
    return stops[i].map((channel, c) => Math.round(channel + (place - i) * (stops[i + 1][c] - channel)));
  }

  gradient(choice) {
    return `linear-gradient(90deg, ${this.stops(choice).map((colour) => `rgb(${colour.join(" ")})`).join(", ")})`;
  }

  get hasSelected() {
    return "selected" in this.values;
  }

  isSelected(index) {
    return this.hasSelected && this.values.selected[index] > 0;
  }

  // Tiles lie on a lattice, as a rule several times finer than a tile; a cell of it is a pixel of the picture.
  _findLattice() {
    const { origins } = this.values;
    const step = (axis) => {
      const places = [...new Set(Array.from({ length: this.n }, (_, i) => origins[2 * i + axis]))].sort((a, b) => a - b);
      let least = Infinity;
      for (let i = 1; i < places.length; i++) least = Math.min(least, places[i] - places[i - 1]);
      return { from: places[0] ?? 0, to: places.at(-1) ?? 0, least };
    };
    const [x, y] = [step(0), step(1)];
    this.cell = Math.min(x.least, y.least, this.side);
    const cells = (axis) => Math.round((axis.to - axis.from) / this.cell);
    if (!(this.cell >= 1) || (cells(x) + 1) * (cells(y) + 1) > MAX_CELLS) this.cell = this.side;
    this.span = Math.max(1, Math.round(this.side / this.cell));
    this.left = x.from;
    this.top = y.from;
    this.width = cells(x) + this.span;
    this.height = cells(y) + this.span;
    this.at = new Map();
    for (let i = 0; i < this.n; i++) this.at.set(this._key(...this._cellOf(...this.origin(i))), i);
  }

  _cellOf(x, y) {
    return [Math.round((x - this.left) / this.cell), Math.round((y - this.top) / this.cell)];
  }

  _key(column, row) {
    return row * (this.width + 1) + column;
  }

  // By score; where a file has none, by what its aggregator made of them.
  _rank() {
    this.ranking = this.choice("scores") ?? { column: { name: "selected", title: "Selected", width: 1 }, at: 0 };
    const value = (index) => this.value(this.ranking, index);
    this.byRank = Array.from({ length: this.n }, (_, i) => i).sort((a, b) => value(b) - value(a) || a - b);
    this.rank = new Uint32Array(this.n);
    this.byRank.forEach((index, place) => { this.rank[index] = place + 1; });
    this.deciding = this.hasSelected ? this.byRank.filter((index) => this.isSelected(index)) : this.byRank;
  }

  // The border of all selected tiles together, in cells of the lattice.
  outline() {
    if (this.border) return this.border;
    const stride = this.width + 2, inside = new Uint8Array(stride * (this.height + 2));
    for (const index of this.deciding) {
      const [column, row] = this._cellOf(...this.origin(index));
      for (let j = 1; j <= this.span; j++) inside.fill(1, (row + j) * stride + column + 1, (row + j) * stride + column + 1 + this.span);
    }
    this.border = new Path2D();
    for (let row = 0; row <= this.height; row++) {
      for (let column = 0; column <= this.width; column++) {
        const k = (row + 1) * stride + column + 1;
        if (inside[k] !== inside[k - 1]) { this.border.moveTo(column, row); this.border.lineTo(column, row + 1); }
        if (inside[k] !== inside[k - stride]) { this.border.moveTo(column, row); this.border.lineTo(column + 1, row); }
      }
    }
    return this.border;
  }

  // The tile above a point whose centre is nearest; -1 where there is none.
  under(x, y) {
    const column = Math.floor((x - this.left) / this.cell), row = Math.floor((y - this.top) / this.cell);
    let best = -1, least = Infinity;
    for (let j = row - this.span; j <= row; j++) {
      for (let i = column - this.span; i <= column; i++) {
        const index = this.at.get(this._key(i, j));
        if (index === undefined || i < 0 || j < 0) continue;
        const [left, top] = this.origin(index);
        if (x < left || y < top || x >= left + this.side || y >= top + this.side) continue;
        const far = (left + this.side / 2 - x) ** 2 + (top + this.side / 2 - y) ** 2;
        if (far < least) [least, best] = [far, index];
      }
    }
    return best;
  }

  // A canvas with a pixel a cell: the mean over the tiles above it, as in the other pictures of a run.
  picture(choice) {
    if (this.pictures.has(choice.key)) return this.pictures.get(choice.key);
    const sums = new Float64Array((this.width + 1) * (this.height + 1)), counts = new Int32Array(sums.length);
    const stride = this.width + 1;
    for (let i = 0; i < this.n; i++) {
      const [column, row] = this._cellOf(...this.origin(i));
      const value = this.value(choice, i);
      for (const [dx, dy, sign] of [[0, 0, 1], [this.span, 0, -1], [0, this.span, -1], [this.span, this.span, 1]]) {
        const k = (row + dy) * stride + column + dx;
        sums[k] += sign * value;
        counts[k] += sign;
      }
    }
    const canvas = document.createElement("canvas");
    canvas.width = this.width;
    canvas.height = this.height;
    const context = canvas.getContext("2d"), image = context.createImageData(this.width, this.height);
    for (let row = 0; row < this.height; row++) {
      for (let column = 0; column < this.width; column++) {
        const k = row * stride + column;
        if (column) { sums[k] += sums[k - 1]; counts[k] += counts[k - 1]; }
      }
    }
    for (let row = 0; row < this.height; row++) {
      for (let column = 0; column < this.width; column++) {
        const k = row * stride + column;
        if (row) { sums[k] += sums[k - stride]; counts[k] += counts[k - stride]; }
        if (counts[k] > 0) image.data.set([...this.colour(choice, sums[k] / counts[k]), 255], 4 * (row * this.width + column));
      }
    }
    context.putImageData(image, 0, 0);
    this.pictures.set(choice.key, canvas);
    return canvas;
  }
}
