// Two stains of a patient side by side. They move together in µm; sections are shifted against each other, not turned.

import { $, el } from "./dom.js";
import { getJson, slidePath } from "./server.js";
import { Stage } from "./stage.js";

export class Pair {
  constructor(main, list, onChange, onProblem) {
    Object.assign(this, { main, list, onChange, onProblem, stage: null, beside: null, linked: true, offset: [0, 0] });
    main.moved.push(() => this.follow(main));
    $("partner").addEventListener("change", () => this.open($("partner").value));
    $("link-pair").addEventListener("click", () => this.link(!this.linked));
  }

  // Offer a slide's partners, and show the one that a link asks for, or go on with two pictures.
  show(slide, asked) {
    this.slide = slide;
    const { partners } = slide, was = Boolean(this.beside);
    $("pair").hidden = $("pair-gap").hidden = !partners.length;
    $("partner").replaceChildren(...partners.map((id) => el("option", { value: id }, `${this.list.get(id)?.stain ?? ""} ${id}`)));
    if (partners.includes(asked)) $("partner").value = asked;
    return this.open(partners.length && (was || partners.includes(asked)) ? $("partner").value : null);
  }

  toggle() {
    if (this.slide?.partners.length) this.open(this.beside ? null : $("partner").value);
  }

  async open(id) {
    this.beside = id;
    $("picture-pair").hidden = $("pair-tools").hidden = !id;
    $("pair").setAttribute("aria-pressed", String(Boolean(id)));
    document.body.classList.toggle("paired", Boolean(id));
    this.onChange();
    if (!id) return;
    let slide;
    try {
      slide = await getJson(slidePath(id));
      if (!slide.file) throw new Error(slide.problems.join(" "));
    } catch (error) {
      this.onProblem(error);
      return;
    }
    if (this.beside !== id) return;
    if (!this.stage) {
      this.stage = new Stage($("picture-pair"));
      this.stage.moved.push(() => this.follow(this.stage));
    }
    await this.stage.open(id, slide.file);
    const centre = (file) => file.size.map((side) => (side * (file.mpp ?? 1)) / 2);
    const [mine, theirs] = [centre(this.main.file), centre(slide.file)];
    this.offset = [theirs[0] - mine[0], theirs[1] - mine[1]]; // centre on centre, until someone moves them apart
    this.follow(this.main);
  }

  link(linked) {
    if (!this.stage?.isOpen || !this.main.isOpen) return;
    if (linked) {
      const [a, b] = [this.main.view(), this.stage.view()], [p, q] = this._mpp();
      this.offset = [b.x * q - a.x * p, b.y * q - a.y * p];
    }
    this.linked = linked;
    $("link-pair").setAttribute("aria-pressed", String(linked));
    $("link-pair").textContent = linked ? "Linked" : "Apart: move, then link";
  }

  follow(leader) {
    if (this.following || !this.beside || !this.linked || !this.stage?.isOpen || !this.main.isOpen) return;
    this.following = true;
    const { x, y, zoom } = leader.view(), [p, q] = this._mpp(), [dx, dy] = this.offset;
    if (leader === this.main) this.stage.goTo({ x: (x * p + dx) / q, y: (y * p + dy) / q, zoom: (zoom * p) / q }, true);
    else this.main.goTo({ x: (x * q - dx) / p, y: (y * q - dy) / p, zoom: (zoom * q) / p }, true);
    this.following = false;
  }

  _mpp() {
    return [this.main.file.mpp ?? 1, this.stage.file.mpp ?? 1];
  }
}
