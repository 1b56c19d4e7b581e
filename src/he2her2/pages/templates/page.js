(() => {
  const root = document.documentElement, store = { get() { try { return localStorage.getItem("he2her2-theme"); } catch { return null; } },
    set(value) { try { localStorage.setItem("he2her2-theme", value); } catch { /* a page from disk may not keep anything */ } } };
  if (store.get()) root.dataset.theme = store.get();
  document.getElementById("theme").addEventListener("click", () => {
    const now = root.dataset.theme || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
    root.dataset.theme = now === "dark" ? "light" : "dark";
    store.set(root.dataset.theme);
  });
  document.getElementById("print").addEventListener("click", () => print());
  let closed = [];
  addEventListener("beforeprint", () => {
    closed = [...document.querySelectorAll("details:not([open])")];
    for (const one of closed) one.open = true;
  });
  addEventListener("afterprint", () => { for (const one of closed) one.open = false; });
})();
