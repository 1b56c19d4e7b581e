(() => {
  const strength = document.getElementById("strength");
  if (strength) strength.addEventListener("input", () => {
    for (const layer of document.querySelectorAll(".heat")) layer.style.opacity = strength.value / 100;
  });
  const dialog = document.getElementById("closeup");
  if (!dialog) return;
  for (const shot of document.querySelectorAll(".tile button.shot")) shot.addEventListener("click", () => {
    dialog.querySelector("img").src = shot.querySelector("img").src;
    dialog.querySelector("img").alt = shot.querySelector("img").alt;
    dialog.querySelector(".what").textContent = shot.closest("figure").querySelector("figcaption").dataset.what;
    dialog.showModal();
  });
  dialog.querySelector("button").addEventListener("click", () => dialog.close());
  dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
})();
