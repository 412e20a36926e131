"use strict";
// The page of trade-offs: one chart of a table's ranked rows, what it shows in the address, the same figures as a table.
// A ranking (without tuning, or of one budget) has a front of its own.

(() => {
  const { data, element, geometry, view } = peftmark;
  const page = document.getElementById("tradeoffs");
  const controls = page.querySelector(".controls");
  const figure = page.querySelector("figure");
  const chart = figure.querySelector(".chart");
  const touched = matchMedia("(pointer: coarse)");
  const labelOf = (row) => [row.method, ...row.settings].join(" ");
  const distinct = (values) => [...new Set(values)];

  // ---- texts: Plotly reads a kind of HTML, and a name may turn the direction of what follows it

  const cut = (text, length) => (text.length > length ? `${text.slice(0, length - 1)}…` : text);
  const literal = (text, length = 100) => `\u2068${cut(text.replaceAll(/[\p{Cc}\p{Cs}]/gu, " "), length)}\u2069`
    .replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
  const number = ([mean, deviation], sign) => `${mean.toFixed(1)}${deviation === null ? "" : ` ± ${deviation.toFixed(1)}`}${sign}`;

  // ---- marks, of Plotly's shapes, for the legend

  const SHAPES = {
    circle: "M6 1A5 5 0 1 1 6 11A5 5 0 1 1 6 1Z",
    square: "M1.5 1.5H10.5V10.5H1.5Z",
    diamond: "M6 .5L11.5 6L6 11.5L.5 6Z",
    "triangle-up": "M6 1L11.5 10.5H.5Z",
    "triangle-down": "M6 11L11.5 1.5H.5Z",
    star: "M6 .3L7.4 4.3L11.7 4.4L8.3 7L9.5 11.1L6 8.6L2.5 11.1L3.7 7L.3 4.4L4.6 4.3Z",
    cross: "M4 1H8V4H11V8H8V11H4V8H1V4H4Z",
    x: "M3.2 .8L6 3.6L8.8 .8L11.2 3.2L8.4 6L11.2 8.8L8.8 11.2L6 8.4L3.2 11.2L.8 8.8L3.6 6L.8 3.2Z",
    hexagon: "M6 .5L10.8 3.2V8.8L6 11.5L1.2 8.8V3.2Z",
  };
  const mark = (shape, open = false) => {
    const svg = page.querySelector("template").content.firstElementChild.cloneNode(true);
    svg.classList.toggle("open", open);
    svg.firstElementChild.setAttribute("d", SHAPES[shape]);
    return svg;
  };
  const symbolOf = (row) => data.symbols[row.colour];

  // ---- choices

  const choose = (key, label, options, chosen, on) => {
    const groups = new Map();
    const select = element("select", { name: key });
    for (const { value, text, group = "" } of options) {
      if (group && !groups.has(group)) {
        groups.set(group, element("optgroup", { label: cut(group, 60) }));
        select.append(groups.get(group));
      }
      (groups.get(group) ?? select).append(element("option", { value, textContent: cut(text, 80) }));
    }
    select.value = chosen;
    select.addEventListener("change", () => on(select.value));
    return element("label", { hidden: options.length < 2 }, `${label} `, select);
  };
  const change = (key, value) => {
    view.set(key, value);
    apply();
  };

  const say = (table, column, measure, tuning) => {
    const like = (each, keys) => keys.every((key) => each[key] === table[key]);
    const to = (candidates) => change("table", (candidates.find((each) => each.backbone === table.backbone && each.protocol === table.protocol) ?? candidates.find((each) => each.backbone === table.backbone) ?? candidates[0]).key);
    const named = (tables) => tables.map((each) => {
      const same = tables.filter((other) => other.protocol === each.protocol);
      return { value: each.key, text: same.length > 1 ? `${each.protocol} (${1 + same.indexOf(each)})` : each.protocol };
    });
    const simple = (values) => distinct(values).map((value) => ({ value, text: value }));
    const ofTrack = data.tables.filter((each) => like(each, ["track"]));
    const ofBackbone = ofTrack.filter((each) => like(each, ["backbone"]));
    const focused = document.activeElement?.name;
    controls.querySelector(".choices").replaceChildren(
      choose("track", "Track", simple(data.tables.map((each) => each.track)), table.track, (value) => to(data.tables.filter((each) => each.track === value))),
      choose("backbone", "Backbone", simple(ofTrack.map((each) => each.backbone)), table.backbone, (value) => to(ofTrack.filter((each) => each.backbone === value))),
      choose("protocol", "Protocol", named(ofBackbone), table.key, (value) => change("table", value)),
      choose("y", "Figure", table.columns.map(({ key, label, group }) => ({ value: key, text: label, group })), column.key, (value) => change("y", value)),
      choose("x", "against", table.measures.map(({ key, label }) => ({ value: key, text: label })), measure.key, (value) => change("x", value)),
      choose("tuning", "Tuning", [...table.rankings.map(({ name }) => ({ value: name, text: name })), { value: "", text: "side by side" }].slice(0, table.rankings.length > 1 ? undefined : 1), tuning, (value) => change("tuning", value)),
      choose("names", "Names", [{ value: "", text: "on the front" }, { value: "all", text: "all" }, { value: "none", text: "none" }], view.get("names"), (value) => change("names", value)),
    );
    if (focused && controls.elements[focused]?.tagName === "SELECT") controls.elements[focused].focus();

    const shown = new Set(view.list("family"));
    const place = (family) => Object.keys(data.symbols).indexOf(table.rows.find((row) => row.family === family).colour);
    const families = distinct(table.rows.map((row) => row.family)).sort((a, b) => place(a) - place(b) || (a < b ? -1 : 1));
    const buttons = families.map((family) => {
      const row = table.rows.find((each) => each.family === family);
      const button = element("button", { type: "button", className: `family family-${row.colour}`, "data-family": family, "aria-pressed": String(shown.has(family)) }, mark(symbolOf(row)), cut(family, 40));
      button.addEventListener("click", () => {
        if (!shown.delete(family)) shown.add(family);
        change("family", [...shown]);
        [...controls.querySelectorAll("[data-family]")].find((each) => each.dataset.family === family).focus();
      });
      return button;
    });
    controls.querySelector(".families").replaceChildren(...buttons);
    const several = table.rankings.length > 1 && tuning === "";
    const legend = controls.querySelector("[data-rankings]");
    legend.hidden = !several;
    legend.replaceChildren(...table.rankings.map(({ name }, index) => element("span", {}, mark("circle", index > 0), `${name}${index > 1 ? ` (dot inside)` : ""}`)));
    controls.querySelector("[data-reset]").hidden = view.empty();
  };

  // ---- what is shown

  let zoom = null; // ranges of both axes
  let zoomed = ""; // the view that they are of
  let shown = null;

  /** The rows of the view, as points: {row, x, y, rank, front}. */
  const select = () => {
    const table = data.tables.find(({ key }) => key === view.get("table")) ?? data.tables[0];
    const column = table.columns.find(({ key }) => key === view.get("y")) ?? table.columns[0];
    const measure = table.measures.find(({ key }) => key === view.get("x")) ?? table.measures[0];
    const tuning = table.rankings.some(({ name }) => name === view.get("tuning")) ? view.get("tuning") : table.rankings.length > 1 ? "" : table.rankings[0].name;
    const families = view.list("family").filter((family) => table.rows.some((row) => row.family === family));
    const sign = table.higher_is_better ? 1 : -1;
    const points = [];
    table.rankings.forEach(({ name }, ranking) => {
      if (tuning !== "" && tuning !== name) return;
      const rows = table.rows.filter((row) => row.ranking === ranking && row.figures[column.key]);
      const ranks = geometry.ranks(rows.map((row) => row.figures[column.key][0]), sign);
      const ranked = rows.map((row, index) => ({ row, ranking, rank: ranks[index], of: rows.length, figure: row.figures[column.key], y: row.figures[column.key][0], x: row.measures[measure.key]?.[0] ?? null, front: false }));
      const kept = ranked.filter(({ row }) => families.length === 0 || families.includes(row.family));
      const placed = kept.filter(({ x }) => x !== null);
      for (const index of geometry.front(placed.map(({ x, y }) => [x, y]), sign)) placed[index].front = true;
      points.push(...kept);
    });
    return { table, column, measure, tuning, sign, points, placed: points.filter(({ x }) => x !== null) };
  };

  const hover = ({ row, ranking, rank, of, figure: value }, { table, column, measure }) => [
    `<b>${literal(row.method, 60)}</b>`,
    ...(row.settings.length > 0 ? [literal(row.settings.join(" "), 80)] : []),
    `${literal(row.family, 40)}${table.rankings.length > 1 ? `, ${literal(table.rankings[ranking].name, 40)}` : ""}`,
    `${literal(column.label, 60)}: ${literal(number(value, table.sign), 40)}${value[2] > 1 ? `, ${value[2]} seeds` : ""}`,
    `${literal(measure.label, 60)}: ${row.measures[measure.key][1]}`,
    `rank ${rank} of ${of}`,
  ].join("<br>");

  // ---- the chart

  const pen = document.createElement("canvas").getContext("2d");

  const draw = () => {
    const { table, column, measure, placed } = shown;
    const style = getComputedStyle(document.documentElement);
    const colour = (name) => style.getPropertyValue(`--${name}`).trim();
    const width = Math.floor(figure.clientWidth);
    const narrow = width < 560;
    const height = Math.round(Math.max(narrow ? 340 : 420, Math.min(0.5 * width, 0.72 * innerHeight)));
    const margin = { l: narrow ? 46 : 62, r: 10, t: 10, b: narrow ? 46 : 54 };
    const font = { family: getComputedStyle(document.body).fontFamily, size: narrow ? 11 : 12, color: colour("muted") };
    const axis = geometry.axis(placed.map(({ x }) => x), measure.logarithmic);
    const ends = placed.flatMap(({ figure: [mean, deviation] }) => [mean - (deviation ?? 0), mean + (deviation ?? 0)]);
    const [low, high] = [Math.min(...ends), Math.max(...ends)];
    const room = 0.07 * (high - low) || 1;
    const range = zoom ?? { x: axis.range, y: [low - room, high + room] };
    const ticks = axis.ticks(...range.x, narrow ? 5 : 9);

    const traces = [];
    const lines = [];
    table.rankings.forEach((_, ranking) => {
      const corners = placed.filter((point) => point.front && point.ranking === ranking).map(({ x, y }) => [axis.place(x), y]).sort(([x], [x2]) => x - x2);
      if (corners.length === 0) return;
      corners.push([Math.max(axis.range[1], range.x[1]), corners.at(-1)[1]]);
      traces.push({
        type: "scatter", mode: "lines", x: corners.map(([x]) => x), y: corners.map(([, y]) => y), hoverinfo: "skip", name: "front",
        line: { shape: "hv", color: colour("strong-rule"), width: 1.4, dash: ["solid", "dash", "dot"][Math.min(ranking, 2)] },
      });
      corners.slice(1).forEach(([x, y], index) => lines.push([corners[index], [x, corners[index][1]]], [[x, corners[index][1]], [x, y]]));
    });
    const groups = grouped(placed);
    for (const members of groups.values()) {
      const { row, ranking } = members[0];
      const own = colour(`family-${row.colour}`);
      traces.push({
        type: "scatter", mode: "markers", name: "points",
        x: members.map(({ x }) => axis.place(x)), y: members.map(({ y }) => y),
        customdata: members.map((point) => placed.indexOf(point)),
        hoverinfo: "text", hovertext: members.map((point) => hover(point, shown)),
        hoverlabel: { bgcolor: colour("raised"), bordercolor: own, font: { ...font, color: colour("ink") }, align: "left" },
        error_y: { array: members.map(({ figure: [, deviation] }) => deviation ?? 0), color: `${own}70`, thickness: 1.2, width: 0 },
        marker: {
          symbol: `${symbolOf(row)}${["", "-open", "-open-dot"][Math.min(ranking, 2)]}`, color: own, opacity: 1,
          size: members.map(({ front }) => (front ? 12 : 9) + (symbolOf(row).startsWith("triangle") ? 2 : 0)), line: { width: ranking === 0 ? 1 : 2, color: ranking === 0 ? colour("paper") : own },
        },
      });
    }

    const inside = [width - margin.l - margin.r, height - margin.t - margin.b];
    const pixel = ([x, y]) => [((x - range.x[0]) / (range.x[1] - range.x[0])) * inside[0], ((y - range.y[0]) / (range.y[1] - range.y[0])) * inside[1]];
    const at = (point) => pixel([axis.place(point.x), point.y]);
    const within = ([x, y]) => x >= 0 && y >= 0 && x <= inside[0] && y <= inside[1];
    const wanted = { "": (point) => point.front, all: () => true, none: () => false }[view.get("names")] ?? ((point) => point.front);
    const named = placed.filter((point) => wanted(point) && within(at(point)));
    named.sort((a, b) => b.front - a.front || shown.sign * (b.y - a.y));
    pen.font = `${font.size}px ${font.family}`;
    const names = named.map((point) => cut(labelOf(point.row).replaceAll(/[\p{Cc}\p{Cf}\p{Cs}]/gu, " "), narrow ? 18 : 30));
    const labels = named.map((point, index) => ({ at: at(point), size: [pen.measureText(names[index]).width + 3, 1.4 * font.size] }));
    const bars = lines.map(([from, to]) => [pixel(from), pixel(to)]).map(([[x, y], [x2, y2]]) => [x - 1, Math.min(y, y2) - 1, x2 + 1, Math.max(y, y2) + 1]);
    const boxes = geometry.placeLabels(labels, placed.map(at).filter(within), 6.5, bars, [0, 0, ...inside]);
    const annotations = boxes.flatMap((box, index) => box ? [{
      x: axis.place(named[index].x), y: named[index].y, text: literal(names[index]), showarrow: false, borderpad: 0,
      xanchor: "left", yanchor: "bottom", xshift: box[0] - labels[index].at[0], yshift: box[1] - labels[index].at[1], font: { ...font, color: colour("ink") },
    }] : []);

    const line = { showgrid: false, zeroline: false, showline: true, linecolor: colour("strong-rule"), ticks: "outside", ticklen: 4, tickcolor: colour("strong-rule"), fixedrange: touched.matches };
    const layout = {
      width, height, margin, font, annotations, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", showlegend: false, hovermode: "closest", hoverdistance: 25,
      dragmode: touched.matches ? false : "zoom",
      xaxis: { ...line, range: [...range.x], tickvals: ticks.map(([value]) => value), ticktext: ticks.map(([, text]) => text), title: { text: literal(measure.axis, narrow ? 44 : 90), standoff: 10 } },
      yaxis: { ...line, showgrid: true, gridcolor: colour("rule"), range: [...range.y], title: { text: literal(`${column.label},${table.sign === "%" ? " " : ""}${table.sign}${table.higher_is_better ? "" : " (lower is better)"}`, narrow ? 40 : 60), standoff: 8 } },
      shapes: axis.divider === null ? [] : [{ type: "line", xref: "x", yref: "paper", x0: axis.divider, x1: axis.divider, y0: 0, y1: 1, line: { color: colour("rule"), width: 1, dash: "dot" } }],
    };
    Plotly.react(chart, traces, layout, { displayModeBar: false, doubleClick: false, scrollZoom: false });
    chart.style.height = `${height}px`;
    const left = named.length - annotations.length;
    figure.querySelector("[data-hidden]").textContent = left > 0 ? `${left} name${left > 1 ? "s have" : " has"} no room here: point at a mark${touched.matches ? "" : ", or drag over a part to see it larger"}.` : "";
    figure.querySelector("[data-whole]").hidden = zoom === null;
  };
  const grouped = (points) => {
    const groups = new Map();
    for (const point of points) {
      const key = JSON.stringify([point.row.family, point.ranking]);
      groups.set(key, [...(groups.get(key) ?? []), point]);
    }
    return groups;
  };

  // ---- the same in words, as a table, and for papers

  const link = ({ row }) => element("a", { href: row.href, textContent: labelOf(row) });

  const tell = () => {
    const { table, column, measure, points, placed } = shown;
    const without = points.length - placed.length;
    const fronts = table.rankings.flatMap(({ name }, ranking) => {
      const drawn = placed.filter((point) => point.ranking === ranking);
      const front = drawn.filter((point) => point.front).sort((one, other) => one.x - other.x);
      if (drawn.length === 0) return [];
      const of = table.rankings.length > 1 ? ` (${name})` : "";
      return [`${front.length} of ${drawn.length}${of} on the front: `, ...front.flatMap((point, index) => [index > 0 ? ", " : "", link(point)]), ". "];
    });
    figure.querySelector("[data-front]").replaceChildren(
      ...(fronts.length > 0 ? fronts : ["Nothing is both measured and chosen. "]),
      without > 0 ? `Of ${without} more, ${measure.label.toLowerCase()} is not known. ` : "",
    );
    const several = table.rankings.length > 1;
    const headings = ["#", "Method", "Family", ...(several ? ["Tuning"] : []), column.label, measure.label, "On the front"];
    const numeric = new Set(["#", column.label, measure.label]);
    const head = element("tr", {}, ...headings.map((text) => element("th", { scope: "col", className: numeric.has(text) ? "number" : "", textContent: text })));
    const body = points.map((point) => {
      const cells = [point.row.family, ...(several ? [table.rankings[point.ranking].name] : [])];
      return element("tr", {},
        element("td", { className: "number", textContent: point.rank }), element("th", { scope: "row" }, link(point)),
        ...cells.map((textContent) => element("td", { textContent })),
        element("td", { className: "number", textContent: number(point.figure, table.sign) }),
        element("td", { className: "number", textContent: point.row.measures[measure.key]?.[1] ?? "–" }),
        element("td", { textContent: point.front ? "yes" : "" }));
    });
    page.querySelector("#figures .frame").replaceChildren(element("table", { className: "plain" }, element("thead", {}, head), element("tbody", {}, ...body)));

    const files = table.rankings.filter(({ figure: path, name }) => path && (shown.tuning === "" || shown.tuning === name));
    page.querySelector("[data-files]").replaceChildren(...files.flatMap(({ figure: path, name }, index) => [
      index > 0 ? ", " : "",
      element("a", { href: path, download: "", textContent: `SVG of ${table.columns[0].label} against ${table.measures[0].label.toLowerCase()}${several ? ` (${name})` : ""}` }),
    ]));
    const quoted = (text) => (/^[\w./:-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`);
    page.querySelector("[data-command]").textContent = `peftmark figures --table ${table.key} --x ${quoted(measure.key)} --y ${quoted(column.key)}${view.get("names") === "all" ? " --names all" : ""}`;
  };

  const apply = () => {
    shown = select();
    const now = JSON.stringify([shown.table.key, shown.column.key, shown.measure.key, shown.tuning, view.list("family")]);
    if (now !== zoomed) [zoom, zoomed] = [null, now];
    say(shown.table, shown.column, shown.measure, shown.tuning);
    tell();
    chart.hidden = shown.placed.length === 0;
    for (const told of figure.querySelectorAll("[data-pointed], [data-hidden]")) told.replaceChildren();
    if (!chart.hidden) draw();
  };

  // ---- what can be done with it

  const pointed = (event) => shown.placed[event.points[0]?.customdata];
  const start = () => {
    chart.on("plotly_click", (event) => {
      const point = pointed(event);
      if (!point) return;
      if (!touched.matches) location.href = point.row.href;
      else figure.querySelector("[data-pointed]").replaceChildren(link(point)); // a finger points by touching
    });
    chart.on("plotly_relayout", (changed) => {
      if (!("xaxis.range[0]" in changed || "yaxis.range[0]" in changed)) return;
      zoom = { x: [...chart.layout.xaxis.range], y: [...chart.layout.yaxis.range] };
      draw();
    });
    chart.on("plotly_doubleclick", whole);
  };
  const whole = () => {
    zoom = null;
    draw();
  };
  figure.querySelector("[data-whole]").addEventListener("click", whole);
  controls.addEventListener("submit", (event) => event.preventDefault());
  controls.querySelector("[data-reset]").addEventListener("click", () => {
    view.clear();
    apply();
  });
  page.querySelector("[data-svg]").addEventListener("click", async () => {
    const svg = await Plotly.toImage(chart, { format: "svg", imageDataOnly: true, width: chart.layout.width, height: chart.layout.height });
    peftmark.download("tradeoff.svg", svg, "image/svg+xml");
  });
  page.querySelector("[data-csv]").addEventListener("click", () => {
    const { table, column, measure, points } = shown;
    const rows = points.map(({ row, ranking, rank, figure: [mean, deviation, seeds], x, front }) => [rank, row.method, row.settings.join(" "), row.family, table.rankings[ranking].name, mean, deviation, seeds, x, front]);
    peftmark.download("tradeoff.csv", peftmark.csv([["rank", "method", "settings", "family", "tuning", column.key, "std", "seeds", measure.key, "front"], ...rows]), "text/csv");
  });

  controls.hidden = false;
  figure.hidden = false;
  page.querySelector("#figures").hidden = false;
  page.querySelector("#papers").hidden = false;
  view.follow(apply);
  start();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", apply);
  let width = figure.clientWidth;
  new ResizeObserver(() => {
    if (figure.clientWidth === width || chart.hidden) return;
    width = figure.clientWidth;
    draw();
  }).observe(figure);
})();
