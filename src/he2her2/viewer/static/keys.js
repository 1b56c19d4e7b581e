// Keyboard: every act of the viewer has a key. Keys are ignored while text is typed.

import { $, el } from "./dom.js";

// The character that is typed: of [ and ] also with the key by which many keyboards write them, and whatever CapsLock does.
function typed(event) {
  const written = event.getModifierState("AltGraph") || (event.altKey && !event.ctrlKey && "[]".includes(event.key));
  if (event.metaKey || ((event.ctrlKey || event.altKey) && !written)) return null;
  if (event.key.length > 1) return event.shiftKey ? `Shift+${event.key}` : event.key;
  return event.getModifierState("CapsLock") ? event.key[event.shiftKey ? "toUpperCase" : "toLowerCase"]() : event.key;
}

export function listenToKeys(acts, mute) {
  const table = new Map(acts.flatMap(({ keys, run }) => keys.map((key) => [key, run])));
  const typing = (node) => node.closest?.("input[type=search], input[type=text], textarea, select, dialog[open]");
  document.addEventListener("keydown", (event) => {
    const key = typed(event);
    if (key === null) return;
    if (typing(event.target)) {
      if (event.key === "Escape" && !event.target.closest("dialog")) event.target.blur();
      return;
    }
    const onControl = event.target.closest?.("button, a, input, [role=toolbar]");
    if (event.key === " ") {
      if (onControl) return;
      event.preventDefault();
      mute(true);
      return;
    }
    if (onControl && ["Enter", "ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown"].includes(event.key) && !event.target.closest("a")) return;
    if (event.target.matches?.("#panel, #film") && event.key.startsWith("Arrow")) return; // they scroll
    const run = table.get(key);
    if (!run || (event.key === "Enter" && onControl)) return;
    event.preventDefault();
    run();
  });
  document.addEventListener("keyup", (event) => { if (event.key === " ") mute(false); });
  window.addEventListener("blur", () => mute(false));
  $("keys").replaceChildren(...acts.filter((act) => act.says).flatMap(({ shown, keys, says }) => [
    el("dt", {}, (shown ?? keys.slice(0, 1)).flatMap((key, i) => [i ? " " : "", el("kbd", {}, key)])),
    el("dd", {}, says),
  ]));
}
