(() => {
  const table = document.getElementById("table"), body = table.tBodies[0], rows = [...body.rows];
  const find = document.getElementById("find"), shown = document.getElementById("shown");
  const chips = [...document.querySelectorAll(".chip")];
  let kind = "";
  const plain = (text) => text.normalize("NFC").toLowerCase(); // macOS writes an umlaut as two characters
  const filter = () => {
    const words = plain(find.value).split(/\s+/).filter(Boolean);
    let n = 0;
    for (const row of rows) {
      const text = plain(row.textContent), kinds = row.dataset.kinds.split(" ");
      row.hidden = !((!kind || kinds.includes(kind)) && words.every((word) => text.includes(word)));
      n += !row.hidden;
    }
    shown.textContent = n === rows.length ? "" : `${n} of ${rows.length} shown`;
  };
  find.addEventListener("input", filter);
  for (const chip of chips) chip.addEventListener("click", () => {
    kind = chip.dataset.kind;
    for (const other of chips) other.setAttribute("aria-pressed", String(other === chip));
    filter();
  });
  const compare = new Intl.Collator("en", { numeric: true }).compare;
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => head.querySelector("button")?.addEventListener("click", () => {
    const down = head.getAttribute("aria-sort") === "ascending";
    for (const other of heads) if (other.dataset.key) other.setAttribute("aria-sort", "none");
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const value = (row) => row.cells[column].dataset.v;
    rows.sort((a, b) => {
      const x = value(a), y = value(b);
      if (x === "" || y === "") return (x === "") - (y === "");
      const order = isNaN(x) || isNaN(y) ? compare(x, y) : x - y;
      return down ? -order : order;
    });
    body.append(...rows);
  }));
})();
