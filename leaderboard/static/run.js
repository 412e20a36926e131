"use strict";
// One run, drawn of its record: run.html#<run id>, with /search behind it to come to its search. Whatever a record
// holds is text: nothing here is made of HTML.

(() => {
const site = (globalThis.peftmark ??= {});
const place = document.getElementById("run");
const [known, rows, searches] = [new Map(), new Map(), new Map()];
const [methods, tasks, backbones] = ["methods", "tasks", "backbones"].map((kind) => new Map(site.subjects[kind]));

// what the files of records, of the board's rows and of searches call
for (const [call, found] of [["loaded", known], ["ranked", rows], ["searched", searches]]) {
  site[call] = (all) => Object.entries(all).forEach(([key, value]) => found.set(key, value));
}

// Elements

function element(name, attributes, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes ?? {})) if (value != null) made.setAttribute(key, value);
  made.append(...children.flat(9).filter((child) => child != null && child !== ""));
  return made;
}

const link = (href, text, more) => element("a", { href, ...more }, text);
const code = (text) => element("code", null, text);
const status = (name) => element("span", { class: `status status-${name}` }, name);
const section = (title, ...children) => element("section", null, element("h2", null, title), ...children);
const quiet = (text) => element("p", { class: "quiet" }, text);
const setting = (text) => [element("span", { class: "setting" }, text), " "];
const outcome = (text) => (/^[a-z]/.test(text) ? status(text) : text); // a figure, or why there is none
const seedLink = ([id, seed, text], prefix = "") => link(`#${id}`, [`${prefix}${seed}: `, prefix ? text : outcome(text)], { class: "seed" });

function facts(pairs) {
  return element("dl", { class: "facts" }, pairs.filter(Boolean).map(([name, ...value]) => [element("dt", null, name), element("dd", null, ...value)]));
}

function table(head, rows) {
  const column = ([text, number]) => element("th", { scope: "col", class: number ? "number" : null }, text);
  return element("div", { class: "frame plain" }, element("table", { class: "plain" },
    element("thead", null, element("tr", null, head.map(column))),
    element("tbody", null, rows.map(({ chosen, cells: [first, ...cells] }) => element("tr", { class: chosen ? "chosen" : null },
      element("th", { scope: "row", class: head[0][1] ? "number" : null }, first),
      cells.map((cell, index) => element("td", { class: head[index + 1][1] ? "number" : null }, cell)))))));
}

// Numbers, as the other pages write them

const formats = new Map();

function fixed(value, digits) {
  if (!formats.has(digits)) {
    const both = { minimumFractionDigits: digits, maximumFractionDigits: digits, useGrouping: false };
    formats.set(digits, new Intl.NumberFormat("en", { ...both, roundingMode: "halfEven" }));
  }
  return formats.get(digits).format(value);
}

const exact = (value) => value.toLocaleString("en");
const plain = (value) => (typeof value === "string" ? value : JSON.stringify(value));
const sorted = (mapping) => Object.entries(mapping).sort(([a], [b]) => (a < b ? -1 : 1));
const unit = (figure) => (figure.unit === "percent" ? "%" : ` ${figure.unit}`);

function general(value, digits) {
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-4 || size >= 10 ** digits)) return value.toExponential(digits - 1).replace(/\.?0*e/, "e");
  return String(Number(value.toPrecision(digits)));
}

function duration(seconds) {
  if (seconds < 10) return `${fixed(seconds, 2)} s`;
  const whole = Number(fixed(seconds, 0));
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  return `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`;
}

function size(bytes) {
  for (const [of, name] of [[1e9, "GB"], [1e6, "MB"], [1e3, "kB"]]) if (bytes >= of) return `${fixed(bytes / of, 1)} ${name}`;
  return `${bytes} B`;
}

// The value of a key of a record, as it is written: what a number looked like decides a run's id.

function written(text, wanted) {
  const tokens = text.match(/"(?:[^"\\]|\\.)*"|[{}[\],:]|[^\s"{}[\],:]+/g);
  let out = "", depth = 0, within = false;
  for (const [index, token] of tokens.entries()) {
    if ("]}".includes(token)) depth -= 1;
    if (within) {
      const empty = "[{".includes(tokens[index - 1]);
      if (depth < 1 || (depth === 1 && token === ",")) return out;
      if ("]}".includes(token)) out += empty ? token : `\n${"  ".repeat(depth - 1)}${token}`;
      else if (token === ",") out += token;
      else if (token === ":") out += ": ";
      else out += (tokens[index - 1] === ":" || !out ? "" : `\n${"  ".repeat(depth - 1)}`) + token;
    }
    if ("[{".includes(token)) depth += 1;
    if (depth === 1 && token === ":" && tokens[index - 1] === JSON.stringify(wanted)) within = true;
  }
  return out;
}

// A line in a box

function drawing(x, y, pairs) {
  const points = pairs.filter((pair) => pair.every(Number.isFinite)).sort(([a], [b]) => a - b);
  if (points.length < 2) return null;
  const [width, height] = [520, 150], [first, last] = [points[0][0], points.at(-1)[0]];
  const values = points.map(([, value]) => value), [low, high] = [Math.min(...values), Math.max(...values)];
  const at = ([a, b]) => `${((width * (a - first)) / (last - first || 1)).toFixed(1)},${((height * (high - b)) / (high - low || 1)).toFixed(1)}`;
  const svg = (name, attributes, text = "") => {
    const made = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    made.textContent = text;
    return made;
  };
  const label = `${y} by ${x}, from ${general(high, 3)} at most to ${general(low, 3)} at least`;
  const drawn = svg("svg", { class: "curve", viewBox: `-60 -10 ${width + 76} ${height + 42}`, role: "img", "aria-label": label });
  drawn.append(
    svg("path", { class: "axis", d: `M0 0V${height}H${width}` }),
    svg("polyline", { class: "line", points: points.map(at).join(" ") }),
    svg("text", { x: -6, y: 4, "text-anchor": "end" }, general(high, 3)),
    svg("text", { x: -6, y: height, "text-anchor": "end" }, general(low, 3)),
    svg("text", { x: 0, y: height + 16 }, general(first, 6)),
    svg("text", { x: width / 2, y: height + 16, "text-anchor": "middle" }, x),
    svg("text", { x: width, y: height + 16, "text-anchor": "end" }, general(last, 6)),
  );
  return drawn;
}

// The parts of the page

function standing(run, about, row, backbone) {
  if (about.left_out) return element("p", { class: "note" }, `In no table: ${about.left_out}.`);
  if (!row) return element("p", { class: "note" }, "A trial is measured on the validation split alone and stands in no table.");
  const parts = [link(row.table, "On the board")];
  if (row.rank != null) parts.push(` in the row of rank ${row.rank}`);
  parts.push(row.remark ? `, ${row.remark}. ` : ". ");
  if (row.cost) parts.push(link(`efficiency/${backbone.slug}.html#${row.cost}`, "What it costs"), ". ");
  const { figure, studies, runs } = new Map(row.cells).get(run.spec.task.name);
  if (row.tuned && figure) parts.push(`The cell is ${figure}${studies ? `, the median of ${studies} studies` : ""}.`);
  else if (!row.tuned && runs.length > 1) {
    parts.push(`The cell${figure ? ` is ${figure},` : ""} from `);
    for (const other of runs) {
      const seed = seedLink(other, "seed ");
      if (other[0] === run.run_id) seed.setAttribute("aria-current", "page");
      parts.push(seed, " ");
    }
  }
  return element("p", { class: "meta" }, parts);
}

function ofSearch(run) {
  const { spec } = run, { tuning } = spec, search = link(`#${run.run_id}/search`, "search");
  const what = tuning.stage === "trial" ? ["A ", search, `'s trial ${spec.trial}, seed ${spec.seed}`]
    : ["Tests what a ", search, ` of ${tuning.trials} trials chose: trial ${spec.trial}`];
  return element("p", { class: "meta" }, what, `, learning rate ${plain(tuning.learning_rate)}`);
}

function quality(run, task) {
  const figure = run.quality ?? run.trial;
  if (!figure) return null;
  const sign = unit(figure), value = (number) => `${fixed(number, 2)}${sign}`;
  const chance = task.chance == null ? "" : `; chance ${task.chance}`;
  const predictions = ["predictions", element("code", { class: "hash" }, figure.predictions_sha256)];
  if (!run.quality) {
    const early = figure.pruned ? "; ended early by the tuner" : "";
    return section("Quality", facts([
      [`validation (${figure.metric})`, element("strong", null, value(figure.validation)), `${chance}${early}`], predictions,
    ]), quiet("A trial sees no test split."));
  }
  const tests = Object.entries(figure.tests);
  return section("Quality", facts([
    [`test (${figure.metric})`, element("strong", null, value(figure.test)), ` on ${exact(figure.n_test)} samples${chance}`],
    ...(tests.length > 1 ? tests.map(([name, each]) => [name, `${value(each.value)} on ${exact(each.n)}`]) : []),
    ["validation", figure.validation == null ? "none" : value(figure.validation)], predictions,
  ]));
}

function parameters({ params, storage }) {
  if (!params) return null;
  return section("Parameters and storage", facts([
    ["trainable", exact(params.trainable)], ["without head", exact(params.trainable_without_head)],
    ["stored", exact(params.stored)], ["added at inference", exact(params.added_at_inference)],
    ["total", exact(params.total)], storage && ["adapter file", size(storage.adapter_bytes)],
  ]));
}

function environment({ env, created }) {
  const packages = sorted(env.packages);
  return section("Environment", facts([
    ["created", created],
    ["hardware", `${env.hardware_class}, ${env.device}, ${env.threads} thread${env.threads === 1 ? "" : "s"}`],
    ["torch, Python", `${env.torch}, ${env.python}`],
    ["source", `${env.git_sha || "unknown"}${env.dirty ? " with changes" : ""}`],
    ["data", element("code", { class: "hash" }, env.data_sha256 || "not hashed")],
    ...(env.data_warnings ?? []).map((warning) => ["caution", warning]),
  ]), packages.length ? element("details", null, element("summary", null, `${packages.length} packages`), facts(packages)) : null);
}

function variants(figures) {
  if (!figures?.length) return null;
  const { axis } = figures[0];
  const validated = figures.filter((each) => each.validation != null).sort((a, b) => b.validation - a.validation || a.value - b.value);
  const figure = (value) => (value == null ? "" : fixed(value, 1));
  const rows = figures.map((each) => ({ chosen: each === validated[0], cells: [each.value, figure(each.validation), figure(each.test)] }));
  return section(`One training, every ${axis}`, drawing(axis, "test %", figures.map((each) => [each.value, each.test])),
    table([[axis, true], ["validation", true], ["test", true]], rows),
    validated.length ? quiet(`Best on validation: ${axis} ${validated[0].value}. The board's figure is that of the model as training leaves it.`) : null);
}

function curve(entries) {
  const drawn = drawing("epoch", "training loss", entries.map((entry) => [entry.epoch, entry.train_loss]));
  if (!entries.length) return [];
  const keys = Object.keys(entries[0]);
  const rows = entries.map((entry) => ({ cells: keys.map((key) => (key in entry ? general(entry[key], 4) : "")) }));
  return [drawn ? section("Training loss", drawn) : null,
    element("details", null, element("summary", null, "Every epoch"), table(keys.map((key) => [key.replaceAll("_", " "), true]), rows))];
}

function phases(run) {
  if (!run.phases?.length) return null;
  const head = [["Phase"], ["epochs", true], ["steps", true], ["evaluations", true], ["time", true]];
  const rows = run.phases.map((each) => ({ cells: [each.name, each.epochs, each.steps, each.evaluations, duration(each.seconds)] }));
  return section("Phases of the training", table(head, rows), quiet("Evaluations are on the validation split. All but the last phase count as tuning."));
}

function searched(search) {
  const several = search.studies > 1;
  const head = [["Trial", true], ["Settings"], ["Validation", true], ...(several ? [["Study"]] : []), ["Tested, by seed"]];
  const rows = search.trials.map((each) => ({
    chosen: each.chosen.length > 0,
    cells: [each.run ? link(`#${each.run}`, each.trial) : each.trial, each.settings.map(setting),
      [outcome(each.figure), each.pruned ? " (ended early)" : ""],
      ...(several ? [`${each.studies.join(", ")}${each.chosen.length ? `, chosen by ${each.chosen.join(", ")}` : ""}`] : []),
      each.finals.map((final) => [seedLink(final), " "])],
  }));
  const space = search.space.map(([name, range], index) => [index ? ", " : "", element("span", { class: "setting" }, `${name} ${range}`)]);
  const missing = search.missing.length ? ` Trials without a record: ${search.missing.join(", ")}.` : "";
  const made = section("Its search", element("p", { class: "meta" }, `${search.words}, by ${search.tuner}; searched: `, space, `.${missing} `,
    link("tuning.html", "More on tuning")), table(head, rows));
  made.id = "search";
  return made;
}

function page(about, text, row, search) {
  const run = JSON.parse(text), { spec } = run;
  const [method, task, backbone] = [methods.get(spec.method.name), tasks.get(spec.task.name), backbones.get(spec.backbone.name)];
  const which = spec.tuning?.stage === "trial" ? `trial ${spec.trial}` : `seed ${spec.seed}`;
  const overrides = sorted(spec.protocol.overrides ?? {});
  const departs = (overrides.length || run.protocol_deviation) && !row?.remark;
  const download = link(URL.createObjectURL(new Blob([text, "\n"], { type: "application/json" })), "record as JSON", { download: `${run.run_id}.json` });
  document.title = `${spec.method.name} on ${spec.task.name}, ${which} · peftmark`;
  return [
    element("h1", null, link(`methods/${method.slug}.html`, spec.method.name), " on ", link(`tasks/${task.slug}.html`, spec.task.name), `, ${which}`),
    element("p", { class: "meta" }, status(run.status), " ", element("span", { class: `family family-${method.colour}` }, method.family), " ",
      link(`backbones/${backbone.slug}.html`, spec.backbone.name), ` · ${spec.protocol.name}, version ${spec.protocol.version} · run `,
      code(run.run_id), " · ", download),
    standing(run, about, row, backbone),
    search ? ofSearch(run) : null,
    run.error ? section(`${run.status[0].toUpperCase()}${run.status.slice(1)} in ${run.error.phase}`,
      element("pre", { class: "error" }, `${run.error.type}: ${run.error.message}`)) : null,
    departs ? element("p", { class: "note" }, "This run departs from its protocol and is not ranked: ",
      overrides.map(([key, value]) => [code(`${key}=${plain(value)}`), " "]), run.protocol_deviation ?? "") : null,
    section(`Repeat ${search ? "its search" : "it"}`, element("pre", { class: "command" }, about.command)),
    element("div", { class: "columns" }, quality(run, task), parameters(run),
      section("Time", facts(["setup", "data", "train", "evaluation", "tuning"].map((name) => [name, duration(run.time_s[name])])),
        quiet("Information only: runs share machines, and time is never ranked.")),
      environment(run)),
    Object.keys(run.found ?? {}).length ? section("What the method found", facts(sorted(run.found).map(([key, value]) => [key, plain(value)]))) : null,
    phases(run), variants(run.quality?.variants), curve((run.quality ?? run.trial)?.curve ?? []),
    search ? searched(search) : null,
    section("Specification", element("pre", null, written(text, "spec"))),
  ];
}

// Loading

function load(address) {
  return new Promise((resolve) => {
    const script = element("script", { src: address });
    script.addEventListener("load", resolve);
    script.addEventListener("error", resolve); // what it did not bring is missed below
    document.head.append(script);
  });
}

const message = (...text) => [element("h1", null, "Run"), element("p", { class: "lead" }, ...text)];

async function show() {
  const [id, part] = location.hash.slice(1).split("/");
  const isId = /^[0-9a-f]{16}$/.test(id);
  if (place.dataset.shown && !isId && document.getElementById(id)) return; // a place on this page
  if (place.dataset.shown !== id) {
    if (isId && !known.has(id)) await load(`data/runs/${id.slice(0, Number(place.dataset.digits))}.js`);
    const [about, text] = known.get(id) ?? [];
    if (about?.row && !rows.has(about.row)) await load(`data/rows/${about.row}.js`);
    if (about?.search && !searches.has(about.search)) await load(`data/searches/${about.search}.js`);
    if (location.hash.slice(1).split("/")[0] !== id) return; // gone on meanwhile
    const list = link("runs.html", "list of runs");
    if (text) place.replaceChildren(...page(about, text, rows.get(about.row), searches.get(about.search)).flat(9).filter(Boolean));
    else place.replaceChildren(...(id ? message("There is no run ", code(id), " on this board: see the ", list, ".") : message("Choose one from the ", list, ".")));
    place.dataset.shown = id;
    if (!part) scrollTo(0, 0);
  }
  if (part) document.getElementById(part)?.scrollIntoView();
}

addEventListener("hashchange", show);
show();
})();
