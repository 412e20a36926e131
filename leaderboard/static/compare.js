"use strict";
// Two to four rows side by side: their figures task by task, and by how much they differ.

(() => {
  const { element } = peftmark;
  const place = document.getElementById("comparison");
  const bar = document.querySelector(".chosen-rows");
  bar.querySelector("a").addEventListener("click", (event) => {
    event.preventDefault(); // the address keeps the view
    place.scrollIntoView();
  });
  const figure = (value) => (value === undefined ? "–" : value.toFixed(1));
  const signed = (value) => (Math.abs(value) < 0.05 ? "±0.0" : `${value > 0 ? "+" : "−"}${Math.abs(value).toFixed(1)}`);

  peftmark.compare = (tables, chosen) => {
    const table = tables.find((each) => chosen.length > 0 && chosen.every((key) => key in each.rows));
    for (const box of document.querySelectorAll(".tick input")) box.checked = Boolean(table) && chosen.includes(box.value);
    bar.hidden = !table;
    bar.querySelector("[data-chosen]").textContent = table ? `${chosen.map((key) => table.rows[key].label).join(", ")}${chosen.length < 2 ? ": tick another row to compare it with" : ""}` : "";
    place.hidden = !table || chosen.length < 2;
    bar.querySelector("a").hidden = place.hidden;
    if (place.hidden) return;
    const [first, ...others] = chosen.map((key) => table.rows[key]);
    const head = element("tr", {}, element("th", { scope: "col", textContent: "Task" }), element("th", { scope: "col", className: "number", textContent: first.label }));
    for (const other of others) {
      head.append(element("th", { scope: "col", className: "number", textContent: other.label }), element("th", { scope: "col", className: "number", textContent: `less ${first.label}` }));
    }
    const body = element("tbody");
    for (const column of table.columns.filter(({ kind }) => kind !== "part")) {
      const [value] = first.figures[column.key] ?? [];
      const label = column.kind === "group" ? `${column.group}: mean` : column.key.replace(/^task:/, "").replace(/^mean$/, "Mean");
      const line = element("tr", { className: column.kind }, element("th", { scope: "row", textContent: label }), element("td", { className: "number", textContent: figure(value) }));
      for (const other of others) {
        const [another] = other.figures[column.key] ?? [];
        const both = value !== undefined && another !== undefined;
        line.append(element("td", { className: "number", textContent: figure(another) }), element("td", { className: "number", textContent: both ? signed(another - value) : "–" }));
      }
      body.append(line);
    }
    place.replaceChildren(
      element("h2", { textContent: "Side by side" }),
      element("p", { className: "meta", textContent: table.name }),
      element("div", { className: "frame plain" }, element("table", { className: "plain" }, element("thead", {}, head), body)),
    );
  };
})();
