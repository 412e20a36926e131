"use strict";
// Tables sort and filter by DataTables. Without scripts every table, row and column is simply there.

globalThis.peftmark ??= {};

(() => {
  const { DataTable, dataTable } = jQuery.fn;
  const order = dataTable.ext.type.order;

  // what has no value stays below, whichever way a column is sorted
  const empty = (value) => value === null || value === "";
  const below = (compare) => (a, b) => (empty(a) || empty(b) ? empty(a) - empty(b) : compare(a, b));
  const numbers = (a, b) => a - b;
  const texts = (a, b) => String(a).localeCompare(String(b), "en", { numeric: true });
  for (const [kind, compare] of [["number", numbers], ["text", texts]]) {
    order[`board-${kind}-pre`] = (value) => value;
    order[`board-${kind}-asc`] = below(compare);
    order[`board-${kind}-desc`] = below((a, b) => compare(b, a));
  }

  /** Makes a table of a page a DataTable whose heads sort it: `data-column`, `data-kind` and `data-first` say how. */
  peftmark.sortable = (table, options = {}) => {
    const heads = [...table.tHead.querySelectorAll("[data-column]")];
    const definitions = heads.map(({ dataset: { column, kind, first } }) => ({
      targets: Number(column),
      type: `board-${kind}`,
      orderable: true,
      orderSequence: first === "ascending" ? ["asc", "desc"] : ["desc", "asc"],
    }));
    const api = jQuery(table).DataTable({
      autoWidth: false,
      columnDefs: [...definitions, { targets: "_all", orderable: false }],
      info: false,
      language: { zeroRecords: table.dataset.nothing ?? "Nothing matches the filter." },
      layout: { topStart: null, topEnd: null, bottomStart: null, bottomEnd: null },
      order: [],
      paging: false,
      ...options,
    });
    return api;
  };

  /** Whether all words are in a text. */
  peftmark.matches = (text, query) => query.toLowerCase().split(/\s+/).every((word) => text.includes(word));

  const filtered = (part) => {
    const search = part.querySelector("input[type=search]");
    if (search === null) return; // nothing to filter by
    const families = [...part.querySelectorAll("[data-filter-family]")];
    const tables = [...part.querySelectorAll("table[data-sortable]")].map((table) => jQuery(table).DataTable());
    const apply = () => {
      const chosen = families.filter((button) => button.ariaPressed === "true").map((button) => button.dataset.filterFamily);
      for (const table of tables) {
        table.search.fixed("filter", (_, __, index) => {
          const { family, search: text } = table.row(index).node().dataset;
          return peftmark.matches(text, search.value) && (chosen.length === 0 || chosen.includes(family));
        });
        table.draw();
      }
      const all = tables.reduce((sum, table) => sum + table.rows().count(), 0);
      const shown = tables.reduce((sum, table) => sum + table.rows({ search: "applied" }).count(), 0);
      part.querySelector("[data-shown]").textContent = shown < all ? `${shown} of ${all} rows` : "";
    };
    search.addEventListener("input", apply);
    for (const button of families) {
      button.addEventListener("click", () => {
        button.ariaPressed = String(button.ariaPressed !== "true");
        apply();
      });
    }
    part.querySelector(".filters").hidden = false;
  };

  for (const table of document.querySelectorAll("table[data-sortable]:not([data-own])")) peftmark.sortable(table);
  for (const part of document.querySelectorAll("[data-filtered]")) filtered(part);
})();

(() => {
  const tabs = [...document.querySelectorAll(".tabs a")].filter((tab) => tab.getAttribute("href").startsWith("#"));
  const sections = tabs.map((tab) => document.getElementById(tab.hash.slice(1)));
  if (sections.length === 0) return;
  let current = sections[0];

  const show = () => {
    const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    const chosen = sections.find((section) => section.contains(target)) ?? current;
    current = chosen;
    sections.forEach((section, index) => {
      section.hidden = section !== current;
      tabs[index].ariaCurrent = section === current ? "true" : null;
    });
    if (target && target !== current) target.scrollIntoView();
  };
  document.body.classList.add("tabbed");
  show();
  addEventListener("hashchange", show);
  for (const tab of tabs) {
    tab.addEventListener("click", (event) => {
      event.preventDefault(); // the page stays where it is, with the tabs in view
      history.pushState(null, "", tab.hash);
      show();
    });
  }
})();
