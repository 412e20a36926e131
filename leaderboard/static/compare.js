"use strict";
// Two to four rows side by side: their figures task by task, and by how much they differ, with 95 % intervals.

(() => {
  const { data, element } = peftmark;
  const place = document.getElementById("comparison");
  const bar = document.querySelector(".chosen-rows");
  const figure = (value) => (value === undefined ? "–" : value.toFixed(1));
  const signed = (value) => (Math.abs(value) < 0.05 ? "±0.0" : `${value > 0 ? "+" : "−"}${Math.abs(value).toFixed(1)}`);

  bar.querySelector("a").addEventListener("click", (event) => {
    event.preventDefault(); // the address keeps the view
    place.scrollIntoView();
  });

  /** The difference of two means over tasks with its interval, where both rows are in one ranking. */
  const ofMeans = (table, one, other) => {
    const found = table.differences.find(({ rows }) => rows.includes(one) && rows.includes(other));
    if (!found?.low) return null;
    const [first, second] = [found.rows.indexOf(one), found.rows.indexOf(other)];
    const [low, high] = [found.low, found.high].map((ends) => ends[Math.min(first, second)][Math.abs(first - second) - 1]);
    return first < second ? [low, high] : [-high, -low];
  };

  /** On one task: Student's t over the differences by seed, and the sampling of both test figures, as if of two sets. */
  const ofTask = (one, other, task) => {
    const seeds = Object.keys(one.seeds[task] ?? {}).filter((seed) => seed in (other.seeds[task] ?? {}));
    if (seeds.length < 2) return null;
    const differences = seeds.map((seed) => one.seeds[task][seed] - other.seeds[task][seed]);
    const mean = differences.reduce((sum, each) => sum + each, 0) / seeds.length;
    const variance = differences.reduce((sum, each) => sum + (each - mean) ** 2, 0) / (seeds.length - 1) / seeds.length;
    const half = (data.student[seeds.length - 2] ?? 1.96) * Math.sqrt(variance);
    const sampling = 1.96 ** 2 * ((one.sampling[task] ?? 0) + (other.sampling[task] ?? 0));
    const width = Math.hypot(half, Math.sqrt(sampling));
    return [mean - width, mean + width];
  };

  const difference = (value, interval) => {
    if (value === null) return element("td", { className: "number", textContent: "–" });
    const cell = element("td", { className: "number", textContent: signed(value) });
    if (interval) cell.append(element("span", { className: "minor", textContent: `${signed(interval[0])} to ${signed(interval[1])}` }));
    if (interval && (interval[0] > 0 || interval[1] < 0)) cell.classList.add("apart");
    return cell;
  };

  const note = (table, chosen) => {
    const found = table.differences.find(({ rows }) => chosen.every((key) => rows.includes(key)));
    const means = found ? (found.withheld ? `The means have no interval: ${found.withheld}.` : `Of means: ${found.method}; ${found.n}.`) : "Rows of different rankings have no interval of their means.";
    return `Intervals are 95 % ones; bold differences are told apart from none. ${means} On a task: Student’s t over the differences by seed, and the sampling of both test figures, where there are two seeds or more.`;
  };

  const header = (text, extra = "") => element("th", { scope: "col", className: `number ${extra}`, textContent: text });

  peftmark.compare = (tables, chosen) => {
    const table = tables.find((each) => chosen.length > 0 && chosen.every((key) => key in each.rows));
    for (const box of document.querySelectorAll(".tick input")) box.checked = Boolean(table) && chosen.includes(box.value);
    bar.hidden = !table;
    place.hidden = !table || chosen.length < 2;
    if (!table) return;
    const labels = chosen.map((key) => table.rows[key].label).join(", ");
    bar.querySelector("[data-chosen]").textContent = chosen.length < 2 ? `${labels}: tick another row to compare it with` : labels;
    bar.querySelector("a").hidden = place.hidden;
    if (place.hidden) return;

    const [first, ...others] = chosen.map((key) => ({ key, ...table.rows[key] }));
    const head = element("tr", {}, element("th", { scope: "col", textContent: "Task" }), header(first.label));
    for (const other of others) head.append(header(other.label, "starts"), header(`less ${first.label}`));
    const body = element("tbody");
    for (const column of table.columns.filter(({ kind }) => kind !== "part")) {
      const label = column.kind === "group" ? `${column.group}: mean` : column.kind === "mean" ? "Mean" : column.key.replace(/^task:/, "");
      const value = first.figures[column.key]?.[0];
      const line = element("tr", { className: column.kind }, element("th", { scope: "row", textContent: label }), element("td", { className: "number", textContent: figure(value) }));
      for (const other of others) {
        const another = other.figures[column.key]?.[0];
        const interval = column.kind === "mean" ? ofMeans(table, other.key, first.key) : column.kind === "task" ? ofTask(other, first, column.key.replace(/^task:/, "")) : null;
        const both = value !== undefined && another !== undefined;
        line.append(element("td", { className: "number starts", textContent: figure(another) }), difference(both ? another - value : null, interval));
      }
      body.append(line);
    }
    const whole = element("table", { className: "board side" }, element("thead", {}, head), body);
    place.replaceChildren(
      element("h2", { textContent: "Side by side" }),
      element("p", { className: "meta", textContent: table.name }),
      element("div", { className: "frame", tabIndex: 0, role: "region", "aria-label": "Side by side" }, whole),
      element("p", { className: "note", textContent: note(table, chosen) }),
    );
  };
})();
