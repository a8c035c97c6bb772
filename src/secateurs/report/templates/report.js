// Draws the embedded figures, follows the colour scheme and print, and handles the page's controls.
// Everything it needs is in the page.
(() => {
  const read = (id) => JSON.parse(document.getElementById(id).textContent);
  const figures = read("plots");
  const dark = new Map(Object.entries(read("dark")).map(([from, to]) => [from.toUpperCase(), to]));
  const scheme = window.matchMedia("(prefers-color-scheme: dark)");
  const narrow = window.matchMedia("(max-width: 520px)");
  const coarse = window.matchMedia("(pointer: coarse)");
  const shown = new Set(); // panels whose "other" traces are switched on
  let printing = false;

  // Figures are stored in the light colours; a table maps them to the dark ones.
  const recolour = (value) => {
    if (typeof value === "string") return dark.get(value.toUpperCase()) ?? value;
    if (Array.isArray(value)) return value.map(recolour);
    if (value && typeof value === "object") {
      return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, recolour(item)]));
    }
    return value;
  };

  const styled = (id) => {
    const light = printing || !scheme.matches;
    const figure = light ? structuredClone(figures[id]) : recolour(figures[id]);
    const panel = id.replace(/^plot-/, "").replace(/-\d+$/, "");
    for (const trace of figure.data) {
      if (trace.meta === "other") trace.visible = shown.has(panel);
    }
    if (narrow.matches && !printing) {
      figure.layout.font.size = 12;
      figure.layout.margin.l = 0;
      figure.layout.margin.r = Math.max(14, figure.layout.margin.r - 12);
    }
    if (narrow.matches && figure.layout.meta === "matrix") figure.layout.xaxis.tickangle = -90;
    if (narrow.matches && figure.layout.meta === "large matrix") {
      // The names do not fit at this width; the rows have the same classes.
      figure.layout.xaxis.showticklabels = false;
      figure.layout.xaxis.title.text = "predicted, in the order of the rows";
    }
    // Touching a plot should scroll the page, not draw a zoom box.
    figure.layout.dragmode = coarse.matches ? false : "zoom";
    return figure;
  };

  // The event comes before the page has the width of the paper: this fits A4 and Letter.
  const PAPER_PX = 680, GAP_PX = 28;
  // Lower charts leave fewer pages half empty; rows with names and large matrices keep their height.
  const PRINTED_HEIGHT = 0.7, PRINTED_MATRIX = 0.58, HIGH_PX = 280;
  const isChart = (data, layout) => layout.meta === "matrix" || layout.height >= HIGH_PX && layout.yaxis?.type !== "category"
    && data.every((trace) => (trace.type ?? "scatter") === "scatter") && (layout.annotations ?? []).length < 8;
  // Bars in rows, where a lower row still holds its name.
  const ROW_PX = 16;
  const areBars = (data, layout) => data.every((trace) => trace.type === "bar")
    && PRINTED_HEIGHT * layout.height >= ROW_PX * ((layout.yaxis?.tickvals?.length ?? Infinity) + 4);
  const printWidth = (place) => {
    const row = place.closest(".plots").classList;
    const columns = row.contains("plots-three") ? 3 : row.contains("plots-several") ? 2 : 1;
    return Math.floor((PAPER_PX - GAP_PX * (columns - 1)) / columns);
  };

  const config = { displayModeBar: false, responsive: true, displaylogo: false };
  const draw = (id) => {
    if (typeof Plotly === "undefined") return null;
    const place = document.getElementById(id);
    const { data, layout } = styled(id);
    if (printing) {
      layout.width = printWidth(place);
      const share = layout.meta === "matrix" ? PRINTED_MATRIX : PRINTED_HEIGHT;
      if (isChart(data, layout) || areBars(data, layout)) layout.height = Math.round(share * layout.height);
    }
    place.style.height = `${layout.height}px`;
    return Plotly.react(place, data, layout, config);
  };
  const drawAll = () => Promise.all(Object.keys(figures).map(draw));
  const ready = loadPlotly().then(drawAll);
  ready.then(
    () => document.documentElement.setAttribute("data-drawn", "true"),
    () => {
      document.getElementById("no-figures").hidden = false;
      for (const place of document.querySelectorAll(".plots, details.tools")) place.hidden = true;
    },
  );

  scheme.addEventListener("change", drawAll);
  narrow.addEventListener("change", drawAll);
  window.addEventListener("beforeprint", () => { printing = true; drawAll(); });
  window.addEventListener("afterprint", () => { printing = false; drawAll(); });

  for (const box of document.querySelectorAll("input[data-others]")) {
    box.closest("label").hidden = false;
    box.addEventListener("change", () => {
      const panel = box.dataset.others;
      if (box.checked) shown.add(panel); else shown.delete(panel);
      Object.keys(figures).filter((id) => id.startsWith(`plot-${panel}-`)).forEach(draw);
    });
  }

  // A link to a collapsed data table opens it and moves the focus there.
  const unfold = () => {
    const target = window.location.hash && document.getElementById(window.location.hash.slice(1));
    if (target instanceof HTMLDetailsElement) {
      target.open = true;
      target.querySelector("summary").focus({ preventScroll: true });
    }
  };
  window.addEventListener("hashchange", unfold);
  for (const link of document.querySelectorAll("a.to-data")) link.addEventListener("click", () => setTimeout(unfold));
  unfold();

  // Zoom and legend for keyboards and touch.
  const zoomed = (place, factor) => {
    const change = {};
    for (const axis of ["xaxis", "yaxis"]) {
      const { range, type } = place._fullLayout[axis];
      if (type !== "linear" && type !== "log") continue;
      const middle = (range[0] + range[1]) / 2;
      change[`${axis}.range`] = range.map((end) => middle + (end - middle) * factor);
    }
    Plotly.relayout(place, change);
  };
  const button = (text, label, act) => {
    const made = document.createElement("button");
    made.type = "button";
    made.textContent = text;
    made.setAttribute("aria-label", label);
    made.addEventListener("click", act);
    return made;
  };
  const toolsOf = (id, label) => {
    const place = document.getElementById(id);
    const box = document.createElement("fieldset");
    box.className = "tool";
    const legend = box.appendChild(document.createElement("legend"));
    legend.textContent = label;
    box.append(
      button("+", `Zoom in: ${label}`, () => zoomed(place, 0.7)),
      button("−", `Zoom out: ${label}`, () => zoomed(place, 1 / 0.7)),
      button("Reset", `Reset: ${label}`, () => draw(id)),
    );
    const names = new Set(figures[id].layout.showlegend
      ? figures[id].data.filter((trace) => trace.name && trace.showlegend !== false
        && trace.visible !== false).map((trace) => trace.name) : []);
    const checks = new Map();
    for (const name of names) {
      const row = box.appendChild(document.createElement("label"));
      const check = row.appendChild(document.createElement("input"));
      check.type = "checkbox";
      row.append(` ${name}`);
      checks.set(name, check);
      check.addEventListener("change", () => {
        const at = place.data.map((trace, index) => (trace.name === name ? index : -1));
        const visible = check.checked ? true : "legendonly";
        Plotly.restyle(place, { visible }, at.filter((index) => index >= 0));
      });
    }
    // Also after a click on the figure's own legend, and after a redraw.
    const follow = () => {
      for (const [name, check] of checks) {
        check.checked = place.data.some((trace) => trace.name === name
          && (trace.visible === undefined || trace.visible === true));
      }
    };
    ready.then(() => { place.on("plotly_afterplot", follow); follow(); });
    return box;
  };
  for (const tools of document.querySelectorAll("details.tools")) {
    const panel = tools.closest(".panel");
    const places = [...panel.querySelectorAll(".plot")];
    const hint = coarse.matches ? "Tap a mark for its value." : "With a mouse: point at a mark"
      + " for its value, drag to zoom, double-click to reset, click a name in the legend to hide it.";
    tools.append(...places.map((place) => {
      const title = place.parentElement.querySelector(".plot-title");
      return toolsOf(place.id, (title ?? panel.querySelector("h3")).textContent);
    }));
    const small = tools.appendChild(document.createElement("p"));
    small.className = "small";
    small.textContent = hint;
    tools.hidden = false;
  }

  // Commands are copied where the browser allows it.
  for (const copy of navigator.clipboard ? document.querySelectorAll("button.copy") : []) {
    copy.hidden = false;
    copy.addEventListener("click", async () => {
      await navigator.clipboard.writeText(copy.parentElement.querySelector("code").textContent);
      copy.textContent = "Copied";
      setTimeout(() => { copy.textContent = "Copy"; }, 1500);
    });
  }

  // One group of merged units at a time.
  for (const chooser of document.querySelectorAll("fieldset.chooser")) {
    const groups = [...chooser.parentElement.querySelectorAll(".group")];
    const choose = () => {
      const chosen = Number(chooser.querySelector("input:checked").value);
      groups.forEach((group, index) => { group.hidden = index !== chosen; });
    };
    chooser.hidden = groups.length < 2;
    chooser.addEventListener("change", choose);
    choose();
  }

  const filters = document.querySelector(".filters");
  if (filters) {
    filters.hidden = false;
    const buttons = [...filters.querySelectorAll("button")];
    const samples = [...document.querySelectorAll(".sample")];
    for (const button of buttons) {
      button.addEventListener("click", () => {
        const word = button.dataset.filter;
        for (const other of buttons) other.setAttribute("aria-pressed", String(other === button));
        for (const sample of samples) {
          sample.hidden = word !== "" && !sample.dataset.state.split(" ").includes(word);
        }
        const left = samples.filter((sample) => !sample.hidden).length;
        document.getElementById("filter-status").textContent = `${left} examples shown`;
      });
    }
  }

  // Mark the section being read in the navigation.
  const links = new Map(
    [...document.querySelectorAll("nav a")].map((link) => [link.hash.slice(1), link]),
  );
  const sections = [...document.querySelectorAll("main > section")];
  const mark = () => {
    const line = window.innerHeight / 3;
    const atEnd = window.innerHeight + window.scrollY >= document.body.scrollHeight - 2;
    const above = sections.filter((section) => section.getBoundingClientRect().top <= line);
    const current = atEnd ? sections.at(-1) : above.at(-1) ?? sections[0];
    for (const [id, link] of links) {
      if (id === current.id) link.setAttribute("aria-current", "true");
      else link.removeAttribute("aria-current");
    }
  };
  document.addEventListener("scroll", mark, { passive: true });
  mark();
})();
