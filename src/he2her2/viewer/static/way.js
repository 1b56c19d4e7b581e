// A way from one section to another: turned, scaled, perhaps mirrored, and shifted; places are [x, y] in µm.

const times = ([a, b], [c, d]) => [a * c - b * d, a * d + b * c];
const over = ([a, b], [c, d]) => times([a, b], [c / (c * c + d * d), -d / (c * c + d * d)]);
const minus = ([a, b], [c, d]) => [a - c, b - d];
const plus = ([a, b], [c, d]) => [a + c, b + d];
const mean = (points) => points.reduce(plus, [0, 0]).map((sum) => sum / points.length);

export class Way {
  constructor({ turn = 0, scale = 1, mirrored = false, dx = 0, dy = 0 } = {}) {
    Object.assign(this, { turn, scale, mirrored, dx, dy });
  }

  get _factor() {
    const angle = (this.turn * Math.PI) / 180;
    return [this.scale * Math.cos(angle), this.scale * Math.sin(angle)];
  }

  _flip([x, y]) {
    return this.mirrored ? [-x, y] : [x, y];
  }

  there(point) {
    return plus(times(this._factor, this._flip(point)), [this.dx, this.dy]);
  }

  back(point) {
    return this._flip(over(minus(point, [this.dx, this.dy]), this._factor));
  }

  // The same but for what is changed, with one place still on its place.
  about(here, there, changes) {
    const way = new Way({ ...this, ...changes, dx: 0, dy: 0 });
    [way.dx, way.dy] = minus(there, way.there(here));
    return way;
  }

  // Least squares through pairs of places; without a free scale that of this way stays.
  through(here, there, freeScale) {
    const flipped = here.map((point) => this._flip(point));
    const [from, to] = [mean(flipped), mean(there)];
    const arms = flipped.map((point) => minus(point, from)), ends = there.map((point) => minus(point, to));
    const sum = arms.map(([x, y], i) => times([x, -y], ends[i])).reduce(plus, [0, 0]);
    const length = arms.reduce((total, [x, y]) => total + x * x + y * y, 0);
    const turn = (Math.atan2(sum[1], sum[0]) * 180) / Math.PI;
    const scale = freeScale && length ? Math.hypot(...sum) / length : this.scale;
    return this.about(this._flip(from), to, { turn, scale });
  }

  miss(here, there) {
    return Math.sqrt(mean(here.map((point, i) => [minus(this.there(point), there[i]).reduce((sum, d) => sum + d * d, 0), 0]))[0]);
  }

  inWords() {
    return [this.turn.toFixed(2), this.scale.toFixed(5), Number(this.mirrored), this.dx.toFixed(1), this.dy.toFixed(1)].join(",");
  }

  static ofWords(text) {
    const numbers = (text ?? "").split(",").map(Number);
    if (!text || numbers.length !== 5 || !numbers.every(Number.isFinite) || !(numbers[1] > 0)) return null;
    const [turn, scale, mirrored, dx, dy] = numbers;
    return new Way({ turn, scale, mirrored: mirrored === 1, dx, dy });
  }
}
