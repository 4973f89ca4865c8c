// What the theme leaves unsaid: the name of its dialog, and that a keyboard can scroll what is wider than the page.
"use strict";
(() => {
  const set = (element, values) => {
    for (const [name, value] of Object.entries(values)) {
      if (element.getAttribute(name) !== value) element.setAttribute(name, value);
    }
  };
  const tell = () => {
    document.querySelectorAll(".md-search").forEach((one) => set(one, { "aria-label": "Search" }));
    // a button beside each block of code; as landmarks they would all have one name
    document.querySelectorAll(".md-code__nav").forEach((one) => set(one, { role: "none" }));
    for (const one of document.querySelectorAll(".md-typeset__scrollwrap, pre > code")) {
      if (one.scrollWidth <= one.clientWidth) continue;
      set(one, one.localName === "code" ? { tabindex: "0" } : { tabindex: "0", role: "group", "aria-label": "Table" });
    }
  };
  tell();
  addEventListener("load", tell);
  addEventListener("resize", tell);
  // The theme adds blocks, and takes a block's tabindex away, when they come into view.
  new MutationObserver(tell).observe(document.body, { childList: true, subtree: true, attributeFilter: ["tabindex"] });
})();
