// Elements from values: text is always text, never markup.

export const $ = (id) => document.getElementById(id);

export function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name === "style") Object.assign(node.style, value);
    else if (name in node && typeof value !== "string") node[name] = value;
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

export const rgb = (colour, alpha = 1) => `rgb(${colour.join(" ")} / ${alpha})`;
export const number = (value, digits = 3) => (Number.isFinite(value) ? value.toFixed(digits) : "–");

// As `units.probability_text` in Python: three decimals, or as many as show on which side of each limit it lies.
export function probability(value, ...limits) {
  if (!Number.isFinite(value)) return "–";
  const told = (text) => limits.every((limit) => !Number.isFinite(limit) || (+text >= limit) === (value >= limit));
  return [3, 4, 5].map((digits) => value.toFixed(digits)).find(told) ?? value.toFixed(6);
}

export const count = (n) => String(n).replace(/\B(?=(\d{3})+$)/g, "\u202f");
export const percent = (share, digits = 1) => (Number.isFinite(share) ? `${(100 * share).toFixed(digits)} %` : "–");

// What this browser remembers from visit to visit; a private window forgets it.
export function remember(name, value) {
  try { localStorage.setItem(`he2her2-${name}`, value); } catch { /* not allowed */ }
}

export function remembered(name) {
  try { return localStorage.getItem(`he2her2-${name}`); } catch { return null; }
}

export function say(text) {
  $("live").textContent = text;
}

export function length_um(um) {
  return um >= 1000 ? `${+(um / 1000).toPrecision(3)} mm` : `${+um.toPrecision(3)} µm`;
}

export function area_mm2(value) {
  return `${value >= 0.01 ? value.toFixed(2) : +value.toPrecision(2)} mm²`;
}

// Another text on a button for a moment.
export function flash(id, text) {
  const button = $(id), before = button.dataset.text ?? button.textContent;
  button.dataset.text = before;
  button.textContent = text;
  setTimeout(() => { button.textContent = before; }, 1600);
}
