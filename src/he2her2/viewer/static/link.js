// What an address asks for; whatever makes no sense in it is left out.

export function readLink(hash) {
  const link = new URLSearchParams(hash.slice(1));
  const numbers = ["x", "y", "zoom"].map((name) => Number.parseFloat(link.get(name)));
  const layersAsked = link.has("layers")
    ? Object.fromEntries(link.get("layers").split(",").filter((part) => part.includes(":")).map((part) => {
      const [key, opacity] = part.split(":");
      return [key, Math.min(1, Math.max(0.05, Number(opacity) / 100 || 0.5))];
    }))
    : null;
  return {
    slide: link.get("slide"), layers: layersAsked, by: link.get("by"), beside: link.get("beside"), lie: link.get("lie"),
    tile: link.has("tile") ? Number.parseInt(link.get("tile"), 10) : -1,
    view: numbers.every(Number.isFinite) && numbers[2] > 0 ? { x: numbers[0], y: numbers[1], zoom: numbers[2] } : null,
  };
}
