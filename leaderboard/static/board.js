"use strict";
// Sorting, filtering and tabs. Without this file every table, row and track is simply there.

for (const table of document.querySelectorAll("table[data-sortable]")) {
  for (const button of table.tHead.querySelectorAll("button")) button.addEventListener("click", () => sort(table, button));
}

function sort(table, button) {
  const head = button.closest("th");
  const { column, kind, first } = button.dataset;
  const other = first === "ascending" ? "descending" : "ascending";
  const direction = head.getAttribute("aria-sort") === first ? other : first;
  for (const each of table.tHead.querySelectorAll("[aria-sort]")) each.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", direction);
  const sign = direction === "ascending" ? 1 : -1;
  const value = (row) => row.cells[column].dataset.value;
  const compare = (a, b) => (kind === "number" ? a - b : a.localeCompare(b, "en", { numeric: true }));
  const rows = [...table.tBodies[0].rows].sort((left, right) => {
    const [a, b] = [value(left), value(right)];
    return a === "" || b === "" ? (a === "") - (b === "") : sign * compare(a, b); // what has no value stays below
  });
  table.tBodies[0].append(...rows);
}

for (const part of document.querySelectorAll("[data-filtered]")) {
  const search = part.querySelector("input[type=search]");
  const families = [...part.querySelectorAll("[data-filter-family]")];
  const apply = () => {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const chosen = families.filter((button) => button.ariaPressed === "true").map((button) => button.dataset.filterFamily);
    let shown = 0, all = 0;
    for (const table of part.querySelectorAll("table[data-sortable]")) {
      let visible = 0;
      for (const row of table.tBodies[0].rows) {
        const { family, search: text } = row.dataset;
        row.hidden = !words.every((word) => text.includes(word)) || (chosen.length > 0 && !chosen.includes(family));
        visible += !row.hidden;
      }
      all += table.tBodies[0].rows.length;
      shown += visible;
      table.nextElementSibling.hidden = visible > 0;
    }
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
}

const tracks = [...document.querySelectorAll("section.track")];

function show() {
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  const current = target?.closest("section.track") ?? tracks.find((track) => !track.hidden && tracks.some((other) => other.hidden)) ?? tracks[0];
  for (const track of tracks) track.hidden = track !== current;
  for (const tab of document.querySelectorAll(".tabs a")) {
    tab.ariaCurrent = tab.hash === `#${current.id}` ? "true" : null;
  }
  if (target && target !== current) target.scrollIntoView();
}

if (tracks.length > 0) {
  document.body.classList.add("tabbed");
  show();
  addEventListener("hashchange", show);
  for (const tab of document.querySelectorAll(".tabs a")) {
    tab.addEventListener("click", (event) => {
      event.preventDefault(); // the page stays where it is, with the tabs in view
      history.pushState(null, "", tab.hash);
      show();
    });
  }
}
