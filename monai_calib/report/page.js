"use strict";
// Draws the figures, sorts the tables, shows and hides methods. Nothing is loaded; without this, tables still stand.
(async () => {
  const PRINT_WIDTH = { half: 322, full: 664 };
  const LIGHT = { text: "#1c2126", grid: "#e4e8ec" };
  let contents = [];
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
    let [rows, filled] = [1, 0];
    for (const name of names) {
      const room = name.length * 7 + 50;
      if (filled && filled + room > width - 72) [rows, filled] = [rows + 1, 0];
      filled += room;
    }
    return rows * 29 + 4;
  };

  const layoutFor = (plot, colours, width) => {
    const layout = structuredClone(plot.layout);
    const legend = legendHeight(plot, width);
    layout.width = width;
    layout.height = Math.min(plot.layout.height, width * (plot.layout.meta?.tallest ?? Infinity)) + legend;
    layout.margin.b += legend;
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

  const contentOf = (figure) => {
    if (!drawn.has(figure)) drawn.set(figure, { ...contents[figure.dataset.figure], width: 0 });
    return drawn.get(figure);
  };

  // Numbers that are drawn are not sent twice: every combination of the names is a row, which one of them ends.
  const csvOf = (figure) => {
    const { csv, grid, plot } = contentOf(figure);
    if (!grid) return csv;
    const rows = grid.reduce((starts, names) => starts.flatMap((start) => names.map((name) => `${start}${name},`)), [""]);
    const numbers = plot.data.flatMap((trace) => trace.x);
    return [csv, ...rows.map((row, at) => row + (numbers[at] ?? "")), ""].join("\n");
  };

  const draw = (figure, width = figure.clientWidth, colours = pageColours()) => {
    const canvas = figure.querySelector(".canvas");
    if (!width) return;
    const content = contentOf(figure);
    const layout = layoutFor(content.plot, colours, Math.max(width, content.plot.layout.meta.narrowest ?? 0));
    Plotly.react(canvas, visibleData(figure, content.plot), layout, { displayModeBar: false, responsive: false });
    canvas.style.minHeight = `${layout.height}px`;
    content.width = width;
  };

  const figures = [...document.querySelectorAll("figure.plot")];
  const isFolded = (figure) => figure.closest("details:not([open])");
  const isDrawn = (figure) => drawn.get(figure)?.width > 0;
  // One that is folded up or in a region that is not shown is marked, to be drawn anew when it comes back.
  const redraw = () => figures.filter(isDrawn).forEach((figure) => {
    if (isFolded(figure) || !figure.clientWidth) drawn.get(figure).width = 0;
    else draw(figure);
  });

  const save = (name, address) => {
    const link = document.createElement("a");
    link.href = address;
    link.download = name;
    link.click();
  };

  const saveText = (name, text, type) => {
    const address = URL.createObjectURL(new Blob([text], { type }));
    save(name, address);
    setTimeout(() => URL.revokeObjectURL(address), 1000);
  };

  const saveSvg = async (figure) => {
    const { plot } = contentOf(figure);
    const layout = layoutFor(plot, LIGHT, Math.max(760, plot.layout.meta.narrowest ?? 0));
    layout.paper_bgcolor = "#ffffff";
    const address = await Plotly.toImage({ data: visibleData(figure, plot), layout },
      { format: "svg", width: layout.width, height: layout.height });
    save(`${figure.dataset.name}.svg`, address);
  };

  // The slices of a case as one drawing: image and truth, then a row of three pictures a method.
  const saveSlices = (section) => {
    const [size, gap, head] = [180, 12, 30];
    const parts = [];
    const put = (image, text, column, row) => {
      const ratio = image.naturalHeight / image.naturalWidth;
      const [x, y] = [gap + column * (size + gap), head + row * (size * ratio + 34)];
      parts.push(`<text x="${x}" y="${y - 6}">${escapeLabel(text)}</text>`,
        `<image x="${x}" y="${y}" width="${size}" height="${size * ratio}" preserveAspectRatio="none" ` +
        `style="image-rendering:pixelated" href="${image.src}"><title>${escapeLabel(image.alt)}</title></image>`);
      return y + size * ratio + gap;
    };
    let bottom = 0;
    section.querySelectorAll(".truth figure").forEach((figure, column) => {
      bottom = Math.max(bottom, put(figure.querySelector("img"), figure.textContent.trim(), column, 0));
    });
    section.querySelectorAll("tbody tr").forEach((row, number) => {
      const label = row.querySelector("th").firstChild.textContent;
      row.querySelectorAll("img").forEach((image, column) => {
        bottom = Math.max(bottom, put(image, column ? ["confidence", "where they part"][column - 1] : label, column, number + 1));
      });
    });
    const width = 3 * size + 4 * gap;
    saveText(`${section.dataset.name}.svg`, `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${bottom}" ` +
      `font-family="sans-serif" font-size="12"><rect width="100%" height="100%" fill="#fff"/>${parts.join("")}</svg>`,
      "image/svg+xml");
  };

  for (const figure of figures) {
    figure.querySelector('[data-download="svg"]').addEventListener("click", () => saveSvg(figure));
    figure.querySelector('[data-download="csv"]').addEventListener("click",
      () => saveText(`${figure.dataset.name}.csv`, csvOf(figure), "text/csv"));
  }
  for (const section of document.querySelectorAll("section.case")) {
    section.querySelector('[data-download="svg"]').addEventListener("click", () => saveSlices(section));
    section.querySelector('[data-download="csv"]').addEventListener("click",
      () => saveText(`${section.dataset.name}.csv`, JSON.parse(section.querySelector("script").textContent), "text/csv"));
  }
  for (const fieldset of document.querySelectorAll("fieldset.methods")) {
    const boxes = [...fieldset.querySelectorAll("input")];
    for (const box of boxes) {
      box.addEventListener("change", () => {
        redraw();
        say(`${box.value} ${box.checked ? "shown in" : "hidden from"} the figures`);
      });
    }
    for (const button of fieldset.querySelectorAll("[data-methods]")) {
      button.addEventListener("click", () => {
        boxes.forEach((box) => { box.checked = button.dataset.methods === "all"; });
        redraw();
        say(`${button.dataset.methods} shown in the figures`);
      });
    }
  }

  // One region at a time; a link to another shows it, and all are printed.
  const switches = [...document.querySelectorAll("fieldset.regions")];
  const showRegion = (fieldset) => {
    const shown = fieldset.querySelector("input:checked").value;
    for (const box of fieldset.querySelectorAll("input")) {
      document.getElementById(box.value)?.classList.toggle("away", shown !== "" && box.value !== shown);
    }
  };
  const showTarget = (id) => {
    const box = id && switches.flatMap((f) => [...f.elements]).find((input) => input.value === id);
    if (!box || box.checked) return;
    box.checked = true;
    showRegion(box.closest("fieldset"));
  };
  for (const fieldset of switches) {
    fieldset.hidden = false;
    showRegion(fieldset);
    fieldset.addEventListener("change", (event) => {
      showRegion(fieldset);
      say(`Shown: ${event.target.parentElement.textContent.trim()}`);
    });
  }
  document.addEventListener("click", (event) => {
    const link = event.target.closest("a[href^='#']");
    if (link) showTarget(link.hash.slice(1));
  });
  addEventListener("hashchange", () => showTarget(location.hash.slice(1)));
  if (location.hash) {
    showTarget(location.hash.slice(1));
    document.getElementById(location.hash.slice(1))?.scrollIntoView();
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
      header.querySelector("button")?.addEventListener("click", () => sort(table, header));
    }
  }
  for (const box of document.querySelectorAll("[data-show-runs]")) {
    const table = box.closest(".table-tools").nextElementSibling.querySelector("table");
    const apply = () => table.classList.toggle("hide-runs", !box.checked);
    box.addEventListener("change", apply);
    apply();
  }

  if (typeof DecompressionStream === "undefined") {
    document.getElementById("old-browser").hidden = false;
    return;
  }
  // Five letters are four bytes, the highest first; what is missing of the last five counts as the highest letter.
  const LETTERS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz!#$%.()*+-;,=:?@^_`{|}~";
  const places = new Uint8Array(128);
  [...LETTERS].forEach((letter, place) => { places[letter.charCodeAt(0)] = place; });
  const unpack = (text) => {
    const groups = Math.ceil(text.length / 5);
    const view = new DataView(new ArrayBuffer(4 * groups));
    for (let group = 0; group < groups; group += 1) {
      let value = 0;
      for (let at = 5 * group; at < 5 * group + 5; at += 1) {
        value = 85 * value + (at < text.length ? places[text.charCodeAt(at)] : 84);
      }
      view.setUint32(4 * group, value);
    }
    const bytes = new Uint8Array(view.buffer, 0, 4 * groups - (5 * groups - text.length));
    return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
  };
  const library = document.createElement("script");
  library.textContent = await unpack(document.getElementById("plotly").textContent);
  document.head.append(library);
  // All figures at once, since a page about to print cannot wait.
  contents = JSON.parse(await unpack(document.getElementById("figures").textContent));

  // A figure is drawn when it comes near the window, or is about to be printed.
  const near = new IntersectionObserver((entries) => {
    for (const { target, isIntersecting } of entries) {
      if (isIntersecting && drawn.get(target)?.width !== target.clientWidth) draw(target);
    }
  }, { rootMargin: "600px 0px" });
  figures.forEach((figure) => near.observe(figure));

  let pending;
  addEventListener("resize", () => {
    clearTimeout(pending);
    pending = setTimeout(() => figures.filter(isDrawn).forEach((figure) => {
      if (!isFolded(figure) && drawn.get(figure).width !== figure.clientWidth) draw(figure);
    }), 150);
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  addEventListener("beforeprint", () => {
    document.querySelectorAll(".region.away").forEach((region) => region.classList.remove("away"));
    figures.filter((f) => !isFolded(f)).forEach(
      (f) => draw(f, f.classList.contains("wide") ? PRINT_WIDTH.full : PRINT_WIDTH.half, LIGHT));
  });
  addEventListener("afterprint", () => {
    switches.forEach(showRegion);
    redraw();
  });
  document.documentElement.dataset.ready = "true";
})();
