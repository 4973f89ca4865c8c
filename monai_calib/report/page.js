"use strict";
// Draws the figures, sorts the tables, shows and hides methods. Nothing is loaded; without this, tables still stand.
(() => {
  const PRINT_WIDTH = 322;
  const LIGHT = { text: "#1c2126", grid: "#e4e8ec" };
  const drawn = new Map();
  const status = document.getElementById("status");
  const say = (text) => { status.textContent = text; };

  const pageColours = () => {
    const css = getComputedStyle(document.documentElement);
    return { text: css.getPropertyValue("--text").trim(), grid: css.getPropertyValue("--grid").trim() };
  };

  // Legends stand below the plot and need room that depends on the width.
  const legendHeight = (plot, width) => {
    if (plot.layout.showlegend === false) return 0;
    const names = new Set(plot.data.filter((t) => t.showlegend !== false && t.name).map((t) => t.name));
    if (names.size < 2) return 0;
    const longest = Math.max(...[...names].map((name) => name.length));
    const perRow = Math.max(1, Math.floor((width - 60) / (longest * 7 + 60)));
    return Math.ceil(names.size / perRow) * 20 + 8;
  };

  const layoutFor = (plot, colours, width) => {
    const layout = structuredClone(plot.layout);
    const legend = legendHeight(plot, width);
    layout.width = width;
    layout.height = Math.min(plot.layout.height, width * (plot.layout.meta?.tallest ?? Infinity)) + legend;
    layout.margin.b += legend;
    layout.legend.yref = "container";
    layout.legend.y = 0;
    layout.legend.yanchor = "bottom";
    layout.paper_bgcolor = "rgba(0,0,0,0)";
    layout.plot_bgcolor = "rgba(0,0,0,0)";
    layout.font = { family: "system-ui, -apple-system, 'Segoe UI', Roboto, 'Noto Sans', sans-serif", size: 12.5,
      color: colours.text };
    for (const key of new Set(["xaxis", "yaxis", ...Object.keys(layout).filter((k) => /^[xy]axis\d*$/.test(k))])) {
      layout[key] = { zeroline: false, ...layout[key], gridcolor: colours.grid, linecolor: colours.text,
        tickcolor: colours.text };
    }
    return layout;
  };

  const hiddenMethods = (part) => {
    const boxes = document.querySelectorAll(`.methods[data-part="${part}"] input`);
    return new Set([...boxes].filter((box) => !box.checked).map((box) => box.value));
  };

  const escapeLabel = (text) => text.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");

  const visibleData = (figure, plot) => {
    const part = figure.closest(".part");
    const hidden = part ? new Set([...hiddenMethods(part.dataset.part)].map(escapeLabel)) : new Set();
    return plot.data.map((trace) => ({ ...trace, visible: !(trace.legendgroup && hidden.has(trace.legendgroup)) }));
  };

  const draw = (figure, width = figure.clientWidth, colours = pageColours()) => {
    const canvas = figure.querySelector(".canvas");
    if (!width) return;
    if (!drawn.has(figure)) drawn.set(figure, JSON.parse(figure.querySelector("script").textContent));
    const { plot } = drawn.get(figure);
    Plotly.react(canvas, visibleData(figure, plot), layoutFor(plot, colours, width),
      { displayModeBar: false, responsive: false });
    drawn.get(figure).width = width;
  };

  const figures = [...document.querySelectorAll("figure.plot")];
  const shown = () => figures.filter((figure) => !figure.closest("details:not([open])"));
  const drawAll = (width, colours) => shown().forEach((figure) => draw(figure, width, colours));

  const save = (name, address) => {
    const link = document.createElement("a");
    link.href = address;
    link.download = name;
    link.click();
  };

  const saveSvg = async (figure) => {
    draw(figure);
    const { plot } = drawn.get(figure);
    const layout = layoutFor(plot, LIGHT, 760);
    layout.paper_bgcolor = "#ffffff";
    const address = await Plotly.toImage({ data: visibleData(figure, plot), layout },
      { format: "svg", width: layout.width, height: layout.height });
    save(`${figure.dataset.name}.svg`, address);
  };

  const saveCsv = (figure) => {
    const { csv } = JSON.parse(figure.querySelector("script").textContent);
    const address = URL.createObjectURL(new Blob([csv], { type: "text/csv" }));
    save(`${figure.dataset.name}.csv`, address);
    setTimeout(() => URL.revokeObjectURL(address), 1000);
  };

  for (const figure of figures) {
    figure.querySelector('[data-download="svg"]').addEventListener("click", () => saveSvg(figure));
    figure.querySelector('[data-download="csv"]').addEventListener("click", () => saveCsv(figure));
  }
  for (const details of document.querySelectorAll("details")) {
    details.addEventListener("toggle", () => {
      const inside = figures.filter((figure) => details.contains(figure));
      if (details.open) inside.forEach((figure) => draw(figure));
      else inside.forEach((figure) => Plotly.purge(figure.querySelector(".canvas")));
    });
  }
  for (const box of document.querySelectorAll(".methods input")) {
    box.addEventListener("change", () => {
      drawAll();
      say(`${box.value} ${box.checked ? "shown in" : "hidden from"} the figures`);
    });
  }

  // Runs of a method move with it when a table is sorted.
  const sortValue = (row, column) => {
    const cell = row.cells[column];
    const text = cell.dataset.value ?? cell.textContent.trim();
    const number = Number(text);
    return text !== "" && !Number.isNaN(number) ? number : text;
  };
  const compare = (a, b) => {
    if (typeof a === "number" && typeof b === "number") return a - b;
    if (typeof a !== typeof b) return typeof a === "number" ? -1 : 1;
    return a.localeCompare(b, "en", { numeric: true });
  };
  const undefinedValue = (value) => value === "nan" || value === "–";
  const sort = (table, header) => {
    const column = header.cellIndex;
    const ascending = header.getAttribute("aria-sort") !== "ascending";
    const groups = new Map();
    [...table.tBodies[0].rows].forEach((row, index) => {
      const key = row.dataset.method ?? index;
      groups.set(key, [...(groups.get(key) ?? []), row]);
    });
    const ordered = [...groups.values()].sort((a, b) => {
      const [x, y] = [sortValue(a[0], column), sortValue(b[0], column)];
      if (undefinedValue(x) || undefinedValue(y)) return undefinedValue(x) - undefinedValue(y);
      return ascending ? compare(x, y) : compare(y, x);
    });
    table.tBodies[0].append(...ordered.flat());
    for (const other of table.tHead.rows[0].cells) {
      if (other.hasAttribute("aria-sort")) other.setAttribute("aria-sort", "none");
    }
    header.setAttribute("aria-sort", ascending ? "ascending" : "descending");
    say(`Sorted by ${header.textContent.trim()}, ${ascending ? "ascending" : "descending"}`);
  };
  for (const table of document.querySelectorAll("table.sortable")) {
    for (const header of table.tHead.rows[0].cells) {
      header.querySelector("button").addEventListener("click", () => sort(table, header));
    }
  }
  for (const box of document.querySelectorAll("[data-show-runs]")) {
    const table = box.closest(".table-tools").nextElementSibling.querySelector("table");
    const apply = () => table.classList.toggle("hide-runs", !box.checked);
    box.addEventListener("change", apply);
    apply();
  }

  let pending;
  addEventListener("resize", () => {
    clearTimeout(pending);
    pending = setTimeout(() => shown().forEach((figure) => {
      if (drawn.get(figure)?.width !== figure.clientWidth) draw(figure);
    }), 150);
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => drawAll());
  addEventListener("beforeprint", () => drawAll(PRINT_WIDTH, LIGHT));
  addEventListener("afterprint", () => drawAll());
  drawAll();
  document.documentElement.dataset.ready = "true";
})();
