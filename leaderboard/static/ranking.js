"use strict";
// The page of a ranking's statistics: which matrix of pairs is shown, and whom one method is tested against.

(() => {
  const { data, element, view } = peftmark;

  const pairs = document.querySelector("[data-pairs]");
  const matrix = pairs.querySelector("table");
  const legend = pairs.querySelector("[data-legend]");
  const kinds = {
    "": legend.textContent,
    wins: "On how many tasks the row is better, equal, worse.",
    better: "Bayesian signed-rank test: the probability, over tasks, that the row is better by more than the region of practical equivalence; bold from 95 %.",
  };
  const cells = matrix && [...matrix.tBodies[0].rows].map((row) => [...row.cells].slice(1));
  const given = cells?.map((row) => row.map((cell) => ({ text: cell.textContent, apart: cell.classList.contains("apart") })));
  const written = {
    "": (row, column) => given[row][column],
    wins: (row, column) => ({ text: `${data.wins[row][column]}–${data.ties[row][column]}–${data.wins[column][row]}`, apart: false }),
    better: (row, column) => ({ text: `${Math.round(100 * data.better[row][column])} %`, apart: data.better[row][column] >= 0.95 }),
  };
  const showPairs = (kind) => {
    legend.textContent = kinds[kind];
    cells.forEach((row, i) => row.forEach((cell, j) => {
      if (i === j) return;
      const { text, apart } = written[kind](i, j);
      cell.textContent = text;
      cell.classList.toggle("apart", apart);
    }));
  };

  const against = document.querySelector("#against");
  const table = against.querySelector("[data-against]");
  const small = (p) => (p < 0.001 ? p.toExponential(1) : p.toPrecision(2));
  const signed = (value) => (Math.abs(value) < 0.05 ? "±0.0" : `${value > 0 ? "+" : "−"}${Math.abs(value).toFixed(1)}`);
  const showAgainst = (one) => {
    against.querySelector("[data-against-title]").textContent = `${data.rows[one]} against each other row.`;
    const lines = Object.entries(data.against[one]).map(([other, [difference, p, adjusted]]) => element("tr", { className: adjusted <= 0.05 ? "chosen" : "" },
      element("th", { scope: "row", textContent: data.rows[other] }),
      ...[signed(difference), small(p), small(adjusted)].map((textContent) => element("td", { className: "number", textContent }))));
    table.tBodies[0].replaceChildren(...lines);
  };

  const show = pairs.querySelector("select");
  const one = against.querySelector("select");
  if (cells) {
    pairs.querySelector("form").hidden = false;
    show.addEventListener("change", () => {
      view.set("pairs", show.value);
      showPairs(show.value);
    });
  }
  if (table) {
    against.querySelector("form").hidden = false;
    one.append(...data.rows.map((label, index) => element("option", { value: index, textContent: label })));
    one.addEventListener("change", () => {
      view.set("one", one.value === "0" ? "" : one.value);
      showAgainst(Number(one.value));
    });
  }
  view.follow(() => {
    if (cells) {
      show.value = view.get("pairs") in written ? view.get("pairs") : "";
      showPairs(show.value);
    }
    if (table) {
      one.value = view.get("one") in data.against ? view.get("one") : "0";
      showAgainst(Number(one.value));
    }
  });
})();
