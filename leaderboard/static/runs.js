"use strict";
// The table of all runs: searched, filtered and sorted by DataTables, which makes the rows of one page at a time. What is
// shown lives in the address. Cells are nodes with texts, never HTML.

(() => {
  const { element, runs, view } = peftmark;
  const { rows, notes, searched } = runs;
  const table = document.getElementById("runs");
  const filters = document.getElementById("filters");

  // kinds of names: the list of them, where a row has its place in it, and how they are ordered
  const kinds = Object.entries({ method: ["methods", 1], backbone: ["backbones", 2], task: ["tasks", 3], status: ["statuses", 6] });
  const names = new Map(kinds.map(([kind, [list, index]]) => {
    const inOrder = [...runs[list]].sort((a, b) => a.localeCompare(b, "en", { numeric: true }));
    const rank = new Map(inOrder.map((name, place) => [name, place]));
    return [kind, { index, inOrder, list: runs[list], ranks: runs[list].map((name) => rank.get(name)) }];
  }));

  // columns: what is shown of a row, what it is found by, what it is sorted by

  const column = (show, find, sort, more) => ({ type: "board-number", ...more, render: (_, type, row) => (type === "display" ? show(row) : type === "filter" ? find(row) : sort(row)) });
  const text = (of, sort, more) => column((row) => document.createTextNode(of(row)), of, sort, more);
  const ofKind = (kind) => {
    const { index, list, ranks } = names.get(kind);
    return text((row) => list[row[index]], (row) => ranks[row[index]]);
  };
  const number = (index, write) => text((row) => write(row[index]), (row) => row[index], { className: "number", orderSequence: ["desc", "asc"] });
  const figure = (missing) => (value) => (value === null ? missing : value.toFixed(1));
  const badges = (row) => notes[row[10]].slice(1);
  const statusName = (row) => runs.statuses[row[6]];
  const written = (trial) => (trial === null ? "" : trial < 0 ? `tuned, ${-1 - trial}` : String(trial));
  const wordOf = (trial) => (trial === null ? "" : trial < 0 ? "tuned" : "trial");

  const status = (row) => element("span", {},
    element("span", { className: `status status-${statusName(row)}`, title: notes[row[10]][0], textContent: statusName(row) }),
    ...badges(row).flatMap(([badge, title]) => [" ", element("span", { className: "badge", title, textContent: badge })]));
  const run = ([id]) => element("a", { href: `run.html#${id}` }, element("code", { textContent: id }));

  const all = {
    run: column(run, (row) => row[0], (row) => row[0], { type: "string" }),
    method: ofKind("method"),
    backbone: ofKind("backbone"),
    task: ofKind("task"),
    trial: column((row) => document.createTextNode(written(row[4])), (row) => wordOf(row[4]), (row) => row[4], { className: "number" }),
    seed: number(5, String),
    status: column(status, (row) => [statusName(row), ...badges(row).map(([badge]) => badge)].join(" "), (row) => names.get("status").ranks[row[6]]),
    validation: number(7, figure("")),
    test: number(8, figure("–")),
    created: text((row) => row[9], (row) => row[9], { type: "string", orderSequence: ["desc", "asc"] }),
  };
  const keys = Object.keys(all).filter((key) => searched || !["trial", "validation"].includes(key));

  // above the table

  const search = element("input", { type: "search", placeholder: "Search runs", autocomplete: "off", "aria-label": "Search runs" });
  const selects = kinds.filter(([kind]) => names.get(kind).list.length > 1).map(([kind]) => {
    const options = names.get(kind).inOrder.map((name) => element("option", { value: name, textContent: name }));
    return [kind, element("select", { "aria-label": kind }, element("option", { value: "", textContent: `every ${kind}` }), ...options)];
  });
  const count = element("span", { className: "quiet", role: "status", "data-shown": "" });
  filters.append(search, ...selects.map(([, select]) => select), count);

  table.tBodies[0].replaceChildren();
  const api = jQuery(table).DataTable({
    data: rows, columns: keys.map((key) => all[key]), deferRender: true, autoWidth: false, order: [], orderClasses: false, pageLength: 100,
    layout: { topStart: null, topEnd: null, bottomStart: null, bottomEnd: { paging: { buttons: 7 } } },
    language: { zeroRecords: "No run matches the filter." },
  });
  table.closest(".frame").after(table.closest(".dt-container").querySelector(".dt-paging")); // the frame scrolls, it does not

  // from the address to the table, and back

  const grouped = (n) => n.toLocaleString("en");

  function apply() {
    if (search.value.trim() !== view.get("search")) search.value = view.get("search");
    for (const [kind, select] of selects) select.value = view.get(kind);
    const chosen = kinds.filter(([kind]) => view.get(kind)).map(([kind]) => [names.get(kind).index, names.get(kind).list.indexOf(view.get(kind))]);
    api.search(view.get("search")).search.fixed("chosen", chosen.length ? (_, row) => chosen.every(([index, place]) => row[index] === place) : null);
    const [sorted, direction] = view.get("sort").split("|");
    api.order(keys.includes(sorted) ? [[keys.indexOf(sorted), direction === "asc" ? "asc" : "desc"]] : []).draw();
    const { recordsDisplay, recordsTotal, pages } = api.page.info();
    const page = Math.min(Number(view.get("page") || 1), pages) - 1;
    if (page > 0) api.page(page).draw("page");
    count.textContent = recordsDisplay < recordsTotal ? `${grouped(recordsDisplay)} of ${grouped(recordsTotal)} runs` : `${grouped(recordsTotal)} runs`;
  }

  function change(key, value) {
    view.set(key, value);
    view.set("page", "");
    apply();
  }

  search.addEventListener("input", () => change("search", search.value.trim()));
  for (const [kind, select] of selects) select.addEventListener("change", () => change(kind, select.value));
  view.follow(apply);
  api.on("order", () => {
    const [first] = api.order(), sort = first ? `${keys[first[0]]}|${first[1]}` : "";
    if (sort === view.get("sort")) return;
    view.set("sort", sort);
    view.set("page", "");
  });
  api.on("page", () => view.set("page", api.page() ? api.page() + 1 : ""));
  filters.hidden = false;
  for (const pages of document.querySelectorAll("nav.pages")) pages.hidden = true;
})();
