"use strict";
// What a page shows is in its address, after the #, so that a view can be sent. An address without = is an anchor.

(() => {
  const read = () => new URLSearchParams(location.hash.includes("=") ? location.hash.slice(1) : "");
  let current = read();

  /** Makes a heading's control of a page: `tag` with properties, attributes for names with a dash, and children. */
  peftmark.element = (tag, properties = {}, ...children) => {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(properties)) {
      if (name.includes("-") || name === "role" || name === "for") element.setAttribute(name, value);
      else element[name] = value;
    }
    element.append(...children);
    return element;
  };

  peftmark.view = {
    get: (key) => current.get(key) ?? "",
    list: (key) => (current.get(key) ?? "").split(",").filter(Boolean).map(decodeURIComponent),
    set(key, value) {
      const text = Array.isArray(value) ? value.map(encodeURIComponent).join(",") : String(value);
      if (text === "") current.delete(key);
      else current.set(key, text);
      const address = `${location.pathname}${location.search}${current.size > 0 ? `#${current}` : ""}`;
      history.replaceState(null, "", address);
    },
    clear() {
      for (const key of [...current.keys()]) current.delete(key);
      history.replaceState(null, "", `${location.pathname}${location.search}`);
    },
    empty: () => current.size === 0,
    /** Calls `apply` now and whenever another address of the page is entered. */
    follow(apply) {
      addEventListener("hashchange", () => {
        current = read();
        apply();
      });
      apply();
    },
  };

  /** Offers text as a file. */
  peftmark.download = (name, text, type) => {
    const address = URL.createObjectURL(new Blob([text], { type }));
    peftmark.element("a", { href: address, download: name }).click();
    URL.revokeObjectURL(address);
  };

  /** Rows of cells as CSV (RFC 4180); what a spreadsheet would take for a formula is text. */
  peftmark.csv = (rows) => {
    const cell = (value) => {
      const text = value === null || value === undefined ? "" : String(value);
      const safe = typeof value === "string" && /^[=+\-@\t\r]/.test(text) ? `'${text}` : text;
      return /[",\r\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
    };
    return rows.map((row) => `${row.map(cell).join(",")}\r\n`).join("");
  };
})();
