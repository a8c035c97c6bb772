// What the theme's script adds to a page gets names and focus, so that it can be used from the keyboard.
(() => {
  const label = () => {
    document.querySelectorAll(".md-code__nav").forEach((nav, index) => {
      const name = `Code block ${index + 1}`;
      if (nav.getAttribute("aria-label") !== name) nav.setAttribute("aria-label", name);
    });
    document.querySelectorAll(".md-typeset__scrollwrap:not([tabindex])").forEach((box) => {
      box.setAttribute("tabindex", "0");
      box.setAttribute("role", "region");
      const table = box.querySelector("table");
      const before = [...document.querySelectorAll("article h1, article h2, article h3")].filter(
        (heading) => heading.compareDocumentPosition(box) & Node.DOCUMENT_POSITION_FOLLOWING
      );
      const heading = before.length ? before[before.length - 1].firstChild.textContent : "";
      const number = [...document.querySelectorAll(".md-typeset__scrollwrap table")].indexOf(table) + 1;
      box.setAttribute("aria-label", `Table ${number}: ${heading}`);
    });
  };
  document.querySelectorAll("article p > img[src*='pictures/']").forEach((image) => {
    image.parentElement.setAttribute("tabindex", "0");
  });
  document.querySelectorAll(".formula").forEach((box) => box.setAttribute("tabindex", "0"));
  new MutationObserver(label).observe(document.body, { childList: true, subtree: true });
  label();
})();
