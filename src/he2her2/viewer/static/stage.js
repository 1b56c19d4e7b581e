// One slide in one OpenSeadragon, with a canvas above it. Places are level-0 px; zoom is level-0 px per screen px.

import { slidePath } from "./server.js";

const OSD = window.OpenSeadragon;

// OpenSeadragon would add a style sheet of its own, which this page's content policy forbids.
const instead = document.createElementNS("urn:he2her2", "style");
instead.setAttribute("data-openseadragon-mobile-css", "");
document.head.append(instead);

// A source whose tiles are widened by a px, so that no seams show, but not where a px of the slide is a px of the screen.
function tileSource(id, file, isExact) {
  const levels = [...file.levels].reverse(); // OpenSeadragon counts from the coarsest
  const [w, h] = file.size;
  const columns = (level) => Math.ceil(levels[level].size[0] / levels[level].tile[0]);
  const rows = (level) => Math.ceil(levels[level].size[1] / levels[level].tile[1]);
  const source = new OSD.TileSource({
    width: w,
    height: h,
    tileSize: levels.at(-1).tile[0],
    minLevel: 0,
    maxLevel: levels.length - 1,
    getLevelScale: (level) => 1 / levels[level].downsample,
    getTileWidth: (level) => levels[level].tile[0],
    getTileHeight: (level) => levels[level].tile[1],
    getNumTiles: (level) => new OSD.Point(columns(level), rows(level)),
    getTileAtPoint(level, point) {
      const { downsample, tile } = levels[level];
      const at = (value, side, n) => Math.min(Math.max(Math.floor((value * w) / downsample / side), 0), n - 1);
      return new OSD.Point(at(point.x, tile[0], columns(level)), at(point.y, tile[1], rows(level)));
    },
    getTileBounds(level, x, y, isSource) {
      const { size, downsample, tile } = levels[level];
      const [left, top] = [x * tile[0], y * tile[1]];
      const [across, down] = [Math.min(tile[0], size[0] - left), Math.min(tile[1], size[1] - top)];
      if (isSource) return new OSD.Rect(0, 0, across, down);
      return new OSD.Rect(...[left, top, across, down].map((px) => (px * downsample) / w));
    },
    getTileUrl: (level, x, y) =>
      slidePath(id, `/zoom/${levels.length - 1 - level}/${x}_${y}?v=${file.version}`),
  });
  Object.defineProperty(source, "tileOverlap", { get: () => (isExact() ? Number.MIN_VALUE : 0), set() {} });
  return source;
}

export class Stage {
  constructor(element, { navigator = false } = {}) {
    this.element = element;
    this.file = null;
    this.claimed = false; // clicks are someone else's
    this.drawers = [];
    this.moved = [];
    this.failed = [];
    this.osd = OSD({
      element,
      drawer: "canvas",
      showNavigationControl: false,
      showNavigator: navigator,
      navigatorPosition: "TOP_RIGHT",
      navigatorSizeRatio: 0.16,
      navigatorAutoFade: false,
      navigatorBackground: "#fff",
      navigatorBorderColor: "#8a8d98",
      navigatorDisplayRegionColor: "#6a2c70",
      crossOriginPolicy: false,
      imageLoaderLimit: 8,
      maxImageCacheCount: 600,
      maxTilesPerFrame: 8,
      minPixelRatio: 0.7,
      maxZoomPixelRatio: 8,
      minZoomImageRatio: 0.6,
      visibilityRatio: 0.4,
      animationTime: matchMedia("(prefers-reduced-motion: reduce)").matches ? 0 : 0.45,
      springStiffness: 9,
      zoomPerScroll: 1.35,
      gestureSettingsMouse: { clickToZoom: false, dblClickToZoom: false },
      gestureSettingsPen: { clickToZoom: false, dblClickToZoom: false },
      gestureSettingsTouch: { clickToZoom: false, dblClickToZoom: false },
    });
    this.osd.innerTracker.keyHandler = null; // keys are the page's
    this.osd.innerTracker.keyDownHandler = null;
    this.osd.canvas.setAttribute("role", "application");
    this.osd.canvas.setAttribute("aria-label", "Slide: arrow keys move, plus and minus zoom");
    this.canvas = document.createElement("canvas");
    this.canvas.className = "overlay";
    this.canvas.setAttribute("aria-hidden", "true");
    this.osd.canvas.append(this.canvas);
    this.osd.addHandler("update-viewport", () => this.redraw());
    this.osd.addHandler("resize", () => this.redraw());
    this.osd.addHandler("viewport-change", () => this.moved.forEach((call) => call(this)));
    this.osd.addHandler("animation", () => this.moved.forEach((call) => call(this)));
    this.osd.addHandler("tile-load-failed", (event) => this.failed.forEach((call) => call(event)));
  }

  open(id, file, view = null) {
    this.id = id;
    this.file = file;
    return new Promise((resolve) => {
      this.osd.addOnceHandler("open", () => {
        const { clientWidth, clientHeight } = this.element;
        this.osd.viewport.resize(new OSD.Point(clientWidth, clientHeight)); // it may have changed just now
        if (view) this.goTo(view, true);
        else this.osd.viewport.goHome(true);
        resolve();
        this.redraw();
      });
      this.osd.open(tileSource(id, file, () => this.isExact()));
    });
  }

  close() {
    this.id = null;
    this.file = null;
    this.osd.close();
    this.redraw();
  }

  get isOpen() {
    return this.file !== null && this.osd.isOpen() && this.osd.world.getItemCount() > 0;
  }

  isExact() {
    if (this.osd.viewport.getRotation(true) % 90 || this.osd.viewport.getFlip()) return false;
    const px = this.osd.viewport.getZoom(true) * this.element.clientWidth / this.file.size[0] * (window.devicePixelRatio || 1);
    return Math.abs(px - Math.round(px)) < 1e-9 && px > 0.5;
  }

  // Level-0 px to screen px of a picture that is not turned: x * scale + dx.
  transform() {
    const viewport = this.osd.viewport;
    const origin = viewport.pixelFromPoint(new OSD.Point(0, 0), true);
    const one = viewport.pixelFromPoint(new OSD.Point(1, 0), true);
    return { scale: (one.x - origin.x) / this.file.size[0], dx: origin.x, dy: origin.y };
  }

  // As `transform`, and right for a turned and mirrored picture, too.
  toScreen(x, y) {
    const { viewport } = this.osd, w = this.file.size[0];
    const at = viewport.pixelFromPoint(new OSD.Point(x / w, y / w), true);
    return [viewport.getFlip() ? viewport.getContainerSize().x - at.x : at.x, at.y];
  }

  toSlide(x, y) {
    const { viewport } = this.osd, w = this.file.size[0];
    const at = viewport.pointFromPixel(new OSD.Point(viewport.getFlip() ? viewport.getContainerSize().x - x : x, y), true);
    return [at.x * w, at.y * w];
  }

  view() {
    const { viewport } = this.osd, w = this.file.size[0], { x, y } = viewport.getCenter(true);
    return { x: x * w, y: y * w, zoom: w / (viewport.getContainerSize().x * viewport.getZoom(true)) };
  }

  // Degrees, clockwise; mirrored after that.
  setTurn(degrees, mirrored) {
    this.osd.viewport.setRotation(degrees, true);
    this.osd.viewport.setFlip(mirrored);
  }

  goTo({ x, y, zoom }, now = false, constrain = true) {
    const viewport = this.osd.viewport;
    const w = this.file.size[0];
    const across = (viewport.getContainerSize().x * zoom) / w;
    viewport.zoomTo(1 / across, null, now);
    viewport.panTo(new OSD.Point(x / w, y / w), now);
    if (constrain) viewport.applyConstraints(now);
  }

  // One level-0 px a screen px, with no fraction of a px left over: what is drawn is what the reader gives.
  pixelForPixel() {
    const ratio = window.devicePixelRatio || 1;
    const size = this.osd.viewport.getContainerSize();
    const { x, y } = this.view();
    const whole = (centre, side) => Math.round(centre - side * ratio / 2) + side * ratio / 2;
    this.goTo({ x: whole(x, size.x), y: whole(y, size.y), zoom: ratio }, true);
  }

  zoomBy(factor) {
    this.osd.viewport.zoomBy(factor);
    this.osd.viewport.applyConstraints();
  }

  panBy(x, y) {
    const size = this.osd.viewport.getContainerSize();
    const by = this.osd.viewport.deltaPointsFromPixels(new OSD.Point(x * size.x, y * size.y), true);
    this.osd.viewport.panBy(by);
    this.osd.viewport.applyConstraints();
  }

  home() {
    this.osd.viewport.goHome();
  }

  redraw() {
    const ratio = window.devicePixelRatio || 1;
    const [w, h] = [this.element.clientWidth, this.element.clientHeight];
    if (this.canvas.width !== Math.round(w * ratio) || this.canvas.height !== Math.round(h * ratio)) {
      this.canvas.width = Math.round(w * ratio);
      this.canvas.height = Math.round(h * ratio);
      this.canvas.style.width = `${w}px`;
      this.canvas.style.height = `${h}px`;
    }
    const context = this.canvas.getContext("2d");
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, this.canvas.width, this.canvas.height);
    if (!this.isOpen) return;
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    const frame = { ...this.transform(), width: w, height: h };
    for (const draw of this.drawers) draw(context, frame);
  }
}
