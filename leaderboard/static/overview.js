"use strict";
// The page of a track: search, filters, budgets, columns, what is compared, and the view in the address.

(() => {
  const { data, element, view } = peftmark;
  const page = document.getElementById("track");
  const controls = page.querySelector(".controls");
  const MANY = 8; // tasks; where a table has more, it opens with the means of its groups

  // every table of the page, its data and its columns by key
  const tables = data.tables.map((of) => {
    const article = document.getElementById(of.key);
    const table = article.querySelector("table");
    const means = of.columns.some((column) => column.kind === "group");
    const keys = ["compare", "rank", "method"];
    const mean = of.columns.filter((column) => column.kind === "mean");
    keys.push(...mean.map((column) => column.key), ...of.measures, "coverage");
    keys.push(...of.columns.filter((column) => column.kind !== "mean").map((column) => column.key));
    const tasks = of.columns.filter((column) => column.kind === "task").length;
    const folded = means && tasks > MANY;
    const api = peftmark.sortable(table, { order: [] });
    return { ...of, article, table, api, keys, folded, byKey: new Map(of.columns.map((column) => [column.key, column])) };
  });
  const rowsOf = (table) => Object.entries(table.rows).map(([key, row]) => ({ key, ...row }));
  const everyRow = tables.flatMap(rowsOf);
  const distinct = (values) => [...new Set(values)].sort();

  // ---- choices: selects that appear where there is something to choose

  const choices = {
    backbone: { label: "Backbone", of: tables.map((table) => table.backbone) },
    protocol: { label: "Protocol", of: tables.map((table) => table.protocol) },
    group: { label: "Tasks", of: tables.flatMap((table) => table.columns.filter((c) => c.kind === "group").map((c) => c.group)) },
    tuning: { label: "Tuning", of: everyRow.map((row) => row.tuned ?? "default") },
    hardware: { label: "Hardware", of: everyRow.flatMap((row) => row.hardware) },
  };
  const selects = {};
  for (const [key, { label, of }] of Object.entries(choices)) {
    const values = distinct(of);
    const any = key === "group" ? 0 : 1;
    if (values.length <= any) continue;
    const options = values.map((value) => element("option", { value, textContent: value }));
    const select = element("select", { name: key }, element("option", { value: "", textContent: "all" }), ...options);
    select.addEventListener("change", () => change(key, select.value));
    selects[key] = select;
    controls.querySelector(".choices").append(element("label", {}, `${label} `, select));
  }

  const families = controls.querySelector(".families");
  for (const family of distinct(everyRow.map((row) => row.family))) {
    const colour = page.querySelector(`.name .family`) && [...page.querySelectorAll(".name .family")].find((each) => each.textContent === family);
    const button = element("button", { type: "button", className: colour?.className ?? "family", textContent: family });
    button.addEventListener("click", () => {
      const chosen = new Set(view.list("family"));
      if (!chosen.delete(family)) chosen.add(family);
      change("family", [...chosen]);
    });
    families.append(button);
  }
  families.hidden = families.childElementCount < 2;

  // ---- budgets: a slider for every measure, over the values that there are

  const sliders = data.measures.filter((measure) => measure.values.length > 1).map((measure) => {
    const max = measure.values.length;
    const input = element("input", { type: "range", min: 0, max, step: 1, name: measure.key, title: measure.title });
    const output = element("output");
    const limit = () => (Number(input.value) < max ? measure.values[Number(input.value)] : null);
    const say = () => {
      output.textContent = limit() === null ? "any" : `≤ ${measure.texts[Number(input.value)]}`;
      input.setAttribute("aria-valuetext", output.textContent);
    };
    input.addEventListener("input", () => {
      say();
      change(`max.${measure.key}`, limit() ?? "");
    });
    controls.querySelector(".sliders").append(element("label", {}, element("span", { textContent: measure.label }), input, output));
    return { measure, limit, set(value) {
      const index = value === "" ? -1 : measure.values.findLastIndex((each) => each <= Number(value));
      input.value = value === "" ? max : Math.max(0, index);
      say();
    } };
  });
  controls.querySelector("#budget").hidden = sliders.length === 0;

  // ---- columns: a box for each; only what differs from the start is in the address

  const optional = new Map();
  for (const table of tables) {
    const known = new Map(data.measures.map((measure) => [measure.key, measure.label]));
    for (const key of table.keys.slice(3)) {
      const column = table.byKey.get(key);
      const task = column?.kind === "task" || column?.kind === "part";
      const label = column ? (column.kind === "group" ? `${column.group}: mean` : column.key.replace(/^(task|part):/, "").replace(/^mean$/, "Mean")) : (known.get(key) ?? "Coverage");
      if (!optional.has(key)) optional.set(key, { label, shown: !(task && table.folded) });
    }
  }
  const boxes = new Map();
  for (const [key, { label }] of optional) {
    const box = element("input", { type: "checkbox" });
    box.addEventListener("change", () => {
      const changed = new Set(view.list("columns"));
      if (!changed.delete(key)) changed.add(key);
      change("columns", [...changed]);
    });
    boxes.set(key, box);
    controls.querySelector("#columns .boxes").append(element("label", {}, box, ` ${label}`));
  }

  // ---- from the address to the page

  const change = (key, value) => {
    view.set(key, value);
    apply();
  };

  const keeps = (row) => {
    const family = view.list("family");
    return (
      peftmark.matches(`${row.label} ${row.family}`.toLowerCase(), view.get("search")) &&
      (family.length === 0 || family.includes(row.family)) &&
      (!view.get("tuning") || (row.tuned ?? "default") === view.get("tuning")) &&
      (!view.get("hardware") || row.hardware.includes(view.get("hardware"))) &&
      sliders.every(({ measure, limit }) => limit() === null || (row.measures[measure.key] ?? Infinity) <= limit())
    );
  };

  /** Ranks by the mean of a group where one is chosen; among rows of one budget, as the board's own. */
  const rank = (table) => {
    const group = view.get("group");
    const key = table.columns.find((column) => column.kind === "group" && column.group === group)?.key;
    const sign = table.higher_is_better ? 1 : -1;
    const value = (row) => Math.round(sign * row.figures[key]?.[0] * 1e9) / 1e9;
    for (const [id, row] of Object.entries(table.rows)) {
      const rivals = Object.values(table.rows).filter((each) => each.state === row.state && each.budget === row.budget && each.figures[key]);
      const ranked = key === undefined ? row.rank : row.state === "ranked" && row.figures[key] ? 1 + rivals.filter((each) => value(each) > value(row)).length : null;
      const cell = document.getElementById(id)?.querySelector(".rank") ?? table.api.row(`#${CSS.escape(id)}`).node().querySelector(".rank");
      cell.firstChild.textContent = ranked ?? "–";
      if (row.near_best) cell.querySelector(".near").hidden = key !== undefined; // it is of the mean over all tasks
      if (key !== undefined) cell.dataset.order = ranked ?? "";
      else cell.dataset.order = ranked === null ? "" : String(Object.keys(table.rows).indexOf(id) + 1);
    }
    table.api.rows().invalidate("dom");
  };

  let ranked = null;
  const apply = () => {
    const search = controls.elements.search;
    if (search.value !== view.get("search")) search.value = view.get("search");
    for (const [key, select] of Object.entries(selects)) select.value = view.get(key);
    for (const button of families.children) button.ariaPressed = String(view.list("family").includes(button.textContent));
    for (const slider of sliders) slider.set(view.get(`max.${slider.measure.key}`));
    const changed = new Set(view.list("columns"));
    for (const [key, box] of boxes) box.checked = optional.get(key).shown !== changed.has(key);

    const [sorted, direction] = view.get("sort").split("|");
    let shown = 0;
    for (const table of tables) {
      const hidden = (view.get("backbone") && table.backbone !== view.get("backbone")) || (view.get("protocol") && table.protocol !== view.get("protocol"));
      table.article.hidden = Boolean(hidden);
      if (hidden) continue;
      if (ranked !== view.get("group")) rank(table);
      const group = view.get("group");
      table.keys.forEach((key, index) => {
        const column = table.byKey.get(key);
        const elsewhere = group && column && column.group !== group && column.kind !== "mean";
        const opened = group && column?.group === group && !changed.has(key);
        table.api.column(index).visible(index < 3 || opened || (boxes.get(key).checked && !elsewhere), false);
      });
      table.api.search.fixed("view", (_, __, index) => keeps(table.rows[table.api.row(index).node().id]));
      const index = table.keys.indexOf(sorted);
      table.api.order(index >= 0 ? [[index, direction === "asc" ? "asc" : "desc"]] : group ? [[1, "asc"]] : []);
      table.api.draw();
      shown += table.api.rows({ search: "applied" }).count();
    }
    ranked = view.get("group");
    controls.querySelector("#budget").toggleAttribute("data-set", sliders.some(({ limit }) => limit() !== null));
    controls.querySelector("#columns").toggleAttribute("data-set", changed.size > 0);
    controls.querySelector("[data-shown]").textContent = shown < everyRow.length ? `${shown} of ${everyRow.length} rows` : "";
    controls.querySelector("[data-reset]").hidden = view.empty();
    peftmark.compare(tables, view.list("compare"));
  };

  controls.elements.search.addEventListener("input", () => change("search", controls.elements.search.value));
  controls.addEventListener("submit", (event) => event.preventDefault());
  controls.querySelector("[data-reset]").addEventListener("click", () => {
    view.clear();
    apply();
  });
  for (const table of tables) {
    table.api.on("order.dt", () => {
      const [first] = table.api.order();
      const text = first ? `${table.keys[first[0]]}|${first[1]}` : "";
      if (text !== view.get("sort") && !(first?.[0] === 1 && view.get("group"))) view.set("sort", text);
    });
  }

  // ---- ticks: two to four rows of one table

  for (const table of tables) {
    for (const [id, row] of Object.entries(table.rows)) {
      const box = element("input", { type: "checkbox", "aria-label": `Compare ${row.label}`, value: id });
      box.addEventListener("change", () => {
        const chosen = view.list("compare").filter((key) => key !== id && key in table.rows);
        change("compare", box.checked ? [...chosen, id].slice(-4) : chosen);
      });
      document.getElementById(id).querySelector(".tick").append(box);
    }
  }

  page.querySelector(".chosen-rows button").addEventListener("click", () => change("compare", ""));

  // ---- take it with you

  /** The tables as they are shown: rows in order, visible columns, values in full. */
  const shownTables = () => tables.filter((table) => !table.article.hidden).map((table) => {
    const keys = table.keys.filter((key, index) => index > 2 && table.api.column(index).visible());
    const rows = table.api.rows({ search: "applied", order: "applied" }).nodes().toArray().map((node) => ({ rank: Number(node.querySelector(".rank").firstChild.textContent) || null, ...table.rows[node.id] }));
    return { table, keys, rows };
  });

  const asRecord = (table, keys, row) => {
    const record = { backbone: table.backbone, protocol: table.protocol, rank: row.rank, method: row.method, settings: row.settings.join(" "), family: row.family, version: row.version, tuned: row.tuned };
    for (const key of keys) {
      if (key === "coverage") [record.succeeded, record.attempted] = row.coverage;
      else if (table.byKey.has(key)) {
        const [mean, deviation, seeds] = row.figures[key] ?? [null, null, null];
        Object.assign(record, { [key]: mean, [`${key} std`]: deviation, [`${key} seeds`]: seeds });
        if (key === "mean") [record["mean low"], record["mean high"]] = row.interval ?? [null, null];
      } else record[key] = row.measures[key] ?? null;
    }
    return record;
  };

  const takes = {
    csv() {
      const records = shownTables().flatMap(({ table, keys, rows }) => rows.map((row) => asRecord(table, keys, row)));
      const names = [...new Set(records.flatMap(Object.keys))];
      peftmark.download(`peftmark-${data.track}.csv`, peftmark.csv([names, ...records.map((record) => names.map((name) => record[name]))]), "text/csv");
    },
    json() {
      const shown = shownTables().map(({ table, keys, rows }) => ({
        backbone: table.backbone, protocol: table.protocol, unit: table.unit, higher_is_better: table.higher_is_better,
        rows: rows.map((row) => asRecord(table, keys, row)),
      }));
      peftmark.download(`peftmark-${data.track}.json`, `${JSON.stringify(shown, null, 1)}\n`, "application/json");
    },
    bibtex() {
      const methods = new Set(shownTables().flatMap(({ rows }) => rows.map(({ method }) => method)));
      const papers = [...methods].map((method) => data.papers[method]).filter(Boolean);
      peftmark.download("peftmark.bib", `${[...new Set([data.cite, ...papers])].map((entry) => entry.trim()).join("\n\n")}\n`, "application/x-bibtex");
    },
    async link(button) {
      const said = button.textContent;
      try {
        await navigator.clipboard.writeText(location.href);
        button.textContent = "Copied";
      } catch {
        button.textContent = "The address bar has it";
      }
      setTimeout(() => { button.textContent = said; }, 2000);
    },
  };
  for (const button of controls.querySelectorAll("[data-take]")) button.addEventListener("click", () => takes[button.dataset.take](button));

  const menus = [...controls.querySelectorAll(".menu")];
  addEventListener("click", ({ target }) => {
    for (const menu of menus) if (!menu.contains(target)) menu.open = false;
  });
  addEventListener("keydown", ({ key }) => {
    if (key === "Escape") for (const menu of menus) menu.open = false;
  });

  controls.hidden = false;
  view.follow(apply);
})();
