// Sends the settings to the server and shows its answer. One request at a time: during a request only
// the latest settings are kept.
(async () => {
  const before = facts.before;

  const share = (value) => (value > 0 && value < 0.001 ? "under 0.1%" : percent(value));
  const times = (old, now) => {
    const ratio = old / now;
    if (Math.abs(ratio - 1) < 0.005) return "as before";
    if (ratio >= 2) return `${ratio.toFixed(ratio < 9.95 ? 1 : 0)} times smaller`;
    return ratio > 1 ? `${percent(1 - now / old, 0)} smaller` : `${percent(now / old - 1, 0)} larger`;
  };
  const plural = (value, noun) => `${whole(value)} ${noun}${value === 1 ? "" : "s"}`;
  const degrees = (value) => `${Number(value.toFixed(2))}°`;

  // Stops of the keep slider: evenly spaced in the logarithm, each a different number.
  const stops = [];
  for (let k = 0; k <= 240; k += 1) {
    const value = Math.round(facts.num_units ** (k / 240));
    if (value !== stops.at(-1)) stops.push(value);
  }
  const nearest = (value) => {
    let best = 0;
    stops.forEach((stop, k) => {
      if (Math.abs(Math.log(stop / value)) < Math.abs(Math.log(stops[best] / value))) best = k;
    });
    return best;
  };

  const state = {
    rule: "pairwise", compensation: "merge", by: "angle", angle: 15, norm: 0,
    keep: facts.num_units, last: null, previous: null, pictureNumber: 0,
  };
  const groups = () => state.rule === "cluster";
  const settingsNow = () => ({
    rule: state.rule,
    compensation: state.compensation,
    low_deg: !groups() && state.by === "angle" ? state.angle : null,
    keep: groups() || state.by === "keep" ? state.keep : null,
    norm_std: !groups() && state.norm > 0 ? state.norm : null,
  });

  // Asking.
  const askCut = (settings) => post("/cut", JSON.stringify(settings), "application/json");

  let busy = false;
  let waiting = false;
  let moves = 0;
  const move = async () => {
    if (busy) { waiting = true; return; }
    busy = true;
    stopSketch();
    do {
      waiting = false;
      const started = performance.now();
      try {
        const found = await askCut(settingsNow());
        problem();
        if (!waiting) follow(found);
        show(found, performance.now() - started);
      } catch (error) {
        problem(error.message);
      }
    } while (waiting);
    busy = false;
    moves += 1;
    page.dataset.moves = String(moves);
  };

  // Showing.
  const follow = (found) => {
    if (!groups() && state.by === "angle") state.keep = found.num_kept;
    if (!groups() && state.by === "keep") state.angle = found.low_deg;
    if (state.rule === "cluster") state.by = "keep";
    setControls();
  };
  const setControls = () => {
    const active = document.activeElement;
    const put = (id, value) => { if ($(id) !== active) $(id).value = value; };
    $("angle").value = String(Math.min(45, state.angle));
    $("norm").value = String(state.norm);
    if ($("keep") !== active || state.by !== "keep") $("keep").value = String(nearest(state.keep));
    put("angle-number", String(Number(state.angle.toFixed(2))));
    put("norm-number", String(Number(state.norm.toFixed(2))));
    put("keep-number", String(state.keep));
    $("angle").setAttribute("aria-valuetext", `${Number(state.angle.toFixed(2))} degrees`);
    $("norm").setAttribute("aria-valuetext",
      state.norm > 0 ? `${state.norm} standard deviations` : "0: every unit");
    $("keep").setAttribute("aria-valuetext", plural(state.keep, "unit"));
    for (const id of ["angle", "angle-number", "norm", "norm-number"]) $(id).disabled = groups();
    $("keep-hint").textContent = groups()
      ? "The number of clusters; one unit of each is kept."
      : "The largest number of units to keep; the angle is computed.";
    $("rule-note").textContent = groups()
      ? "Units are clustered by the angles between them, after the mean of each unit is subtracted. This is the default of secateurs prune and has no angle threshold."
      : "One pass over the units: a unit is removed if it is within the angle of a kept one.";
    for (const box of document.querySelectorAll("input[name=rule]")) box.checked = box.value === state.rule;
    $("compensation").value = state.compensation;
  };

  const show = (found, milliseconds) => {
    const old = state.last;
    state.last = found;
    $("kept").textContent = whole(found.num_kept);
    $("kept-note").textContent = `of ${whole(facts.num_units)}, ${share(found.num_kept / facts.num_units)}`;
    $("accuracy").textContent = percent(found.accuracy);
    $("accuracy-note").textContent = `${against(found, before)}; balanced ${percent(found.balanced_accuracy)}`;
    $("parameters").textContent = count(found.num_parameters);
    $("parameters-note").textContent = `of ${count(before.num_parameters)}, ${times(before.num_parameters, found.num_parameters)}`;
    $("bytes").textContent = size(found.bytes);
    $("bytes-note").textContent = `of ${size(before.bytes)}, ${times(before.bytes, found.bytes)}`;
    $("command").textContent = found.command;
    $("name").placeholder = suggestion(found);
    if (!$("name").dataset.own) $("name").value = suggestion(found);
    if (milliseconds !== undefined) {
      $("took").textContent = `Computed in ${Math.round(1000 * found.seconds)} ms, shown after ${Math.round(milliseconds)} ms. `
        + `${plural(found.num_changed, "validation image")} ${found.num_changed === 1 ? "has" : "have"} a different prediction.`;
      page.dataset.milliseconds = String(Math.round(milliseconds));
    }
    state.previous = old && JSON.stringify(old.settings) !== JSON.stringify(found.settings) ? old.states : state.previous ?? found.states;
    drawMap(found.states, state.previous);
    remember(found, true);
    if (found.picture && found.picture.number === state.pictureNumber) showAnswers(found.picture);
    if ($("unit").value !== "") askUnit();
    announce(`${plural(found.num_kept, "unit")} kept, validation accuracy ${percent(found.accuracy)}, ${size(found.bytes)}`);
  };
  const suggestion = (found) => `${facts.layer.replace(/[^A-Za-z0-9._-]/g, "-")}-${found.num_kept}`.replace(/^[^A-Za-z0-9]+/, "");

  // The map: one square a unit, row by row.
  const columns = Math.ceil(Math.sqrt(facts.num_units));
  const rows = Math.ceil(facts.num_units / columns);
  const colour = (name) => getComputedStyle(page).getPropertyValue(name).trim();
  const drawMap = (states, old) => {
    const canvas = $("map");
    const side = Math.max(4, Math.floor((Math.min(460, canvas.parentElement.clientWidth - 4) * window.devicePixelRatio) / columns));
    canvas.width = columns * side;
    canvas.height = rows * side;
    const paint = canvas.getContext("2d");
    const [kept, gone, line, dead, went, back] =
      ["--accent", "--shade", "--line", "--muted", "--after", "--before"].map(colour);
    const gap = side > 5 ? 1 : 0;
    const counts = { kept: 0, gone: 0, dead: 0, went: 0, back: 0 };
    for (let k = 0; k < states.length; k += 1) {
      const x = (k % columns) * side;
      const y = Math.floor(k / columns) * side;
      const now = states[k];
      const was = old[k];
      counts[now === "0" ? "kept" : now === "1" ? "gone" : "dead"] += 1;
      if (now === "0" && was !== "0") counts.back += 1;
      if (now === "1" && was === "0") counts.went += 1;
      paint.fillStyle = now === "0" ? (was === "0" ? kept : back) : now === "1" ? (was === "0" ? went : gone) : line;
      if (now > "1") {
        const dot = Math.max(2, Math.round(side / 3));
        paint.fillStyle = dead;
        paint.fillRect(x + (side - dot) / 2, y + (side - dot) / 2, dot, dot);
      } else {
        paint.fillRect(x, y, side - gap, side - gap);
      }
    }
    for (const [name, value] of Object.entries(counts)) $(`legend-${name}`).textContent = whole(value);
    canvas.setAttribute("aria-label",
      `Map of ${plural(states.length, "unit")}: ${whole(counts.kept)} kept, ${whole(counts.gone)} removed, ${whole(counts.dead)} constant; ${whole(counts.went)} removed by the last change, ${whole(counts.back)} kept again`);
  };
  $("map").addEventListener("click", (event) => {
    const box = $("map").getBoundingClientRect();
    const column = Math.floor(((event.clientX - box.left) / box.width) * columns);
    const row = Math.floor(((event.clientY - box.top) / box.height) * rows);
    const index = row * columns + column;
    if (index < facts.num_units) { $("unit").value = String(index); askUnit(); }
  });
  const askUnit = async () => {
    const index = $("unit").value;
    if (index === "" || !state.last) return;
    try {
      const found = await ask(`/unit?${query({ settings: JSON.stringify(state.last.settings), index })}`);
      const angle = found.angle_deg === null ? "" : ` at ${degrees(found.angle_deg)}`;
      const stands = found.angle_deg > 90 ? "opposite" : "nearest";
      $("unit-answer").textContent = {
        0: found.num_merged ? `kept; ${plural(found.num_merged, "unit")} merged into it.` : "kept; no units merged into it.",
        1: found.parent === null ? "removed; not merged." : `removed; the ${stands} kept unit is ${found.parent}${angle}.`,
        2: "removed: zero on every training image.",
        3: "removed: constant on the training images.",
      }[found.state];
    } catch (error) {
      $("unit-answer").textContent = error.message;
    }
  };
  $("unit").addEventListener("input", askUnit);

  // Settings tried.
  const trail = new Map();
  const named = (settings, low) => {
    const how = settings.keep !== null && settings.rule === "cluster" ? "cluster" : degrees(low ?? settings.low_deg);
    const norm = settings.norm_std === null ? "" : `, norm ${Number(settings.norm_std.toFixed(2))}`;
    return `${how}${norm}, ${settings.compensation.replace("_", " ")}`;
  };
  const remember = (found, current) => {
    trail.set(JSON.stringify(found.settings), found);
    drawTrail(current ? found : state.last);
    listTrail();
  };
  const KINDS = { pairwise: ["pairwise", "#0072B2", "circle"], cluster: ["cluster", "#D55E00", "diamond"] };
  const drawTrail = (current) => {
    const marks = [...trail.values()];
    const data = Object.entries(KINDS).map(([rule, [name, fill, symbol]]) => {
      const mine = marks.filter((one) => one.settings.rule === rule);
      return {
        type: "scatter", mode: "markers", name, x: mine.map((one) => one.num_kept), y: mine.map((one) => one.accuracy),
        customdata: mine.map((one) => JSON.stringify(one.settings)),
        text: mine.map((one) => `${plural(one.num_kept, "unit")} kept<br>${percent(one.accuracy)}<br>${named(one.settings, one.low_deg)}`),
        hovertemplate: "%{text}<extra></extra>",
        marker: { color: fill, symbol, size: 9, opacity: 0.75, line: { color: SURFACE, width: 1 } },
      };
    });
    data.push({
      type: "scatter", mode: "lines", name: "unpruned", x: [1, facts.num_units], y: [before.accuracy, before.accuracy],
      line: { color: MUTED, width: 1.6, dash: "dash" }, hovertemplate: `unpruned ${percent(before.accuracy)}<extra></extra>`,
    });
    if (current) {
      data.push({
        type: "scatter", mode: "markers", name: "current", x: [current.num_kept], y: [current.accuracy], hoverinfo: "skip",
        marker: { color: "rgba(0,0,0,0)", size: 18, line: { color: INK, width: 2.5 } },
      });
    }
    const values = [...marks.map((one) => one.accuracy), before.accuracy];
    const [low, high] = [Math.min(...values), Math.max(...values)];
    const room = Math.max(0.02, 0.12 * (high - low));
    drawChart("trail", data, {
      xaxis: { type: "log", title: chartTitle("units kept"), range: [-0.05, Math.log10(facts.num_units) + 0.08], showgrid: false, dtick: 1, tickformat: ",d" },
      yaxis: { title: chartTitle("validation accuracy"), tickformat: ".2~%", range: [Math.max(-0.02, low - room), Math.min(1.02, high + room)] },
      height: 320, uirevision: "same",
    });
  };
  const listTrail = () => {
    const sorted = [...trail.values()].sort((a, b) => a.num_kept - b.num_kept);
    $("tried").replaceChildren(...sorted.map((one) => {
      const row = tableRow(named(one.settings, one.low_deg),
        [whole(one.num_kept), percent(one.accuracy), count(one.num_parameters)]);
      const cell = document.createElement("td");
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = "Return";
      button.setAttribute("aria-label", `Return to ${named(one.settings, one.low_deg)}`);
      button.addEventListener("click", () => goTo(one.settings));
      cell.append(button);
      row.append(cell);
      return row;
    }));
  };
  const goTo = (settings) => {
    state.rule = settings.rule;
    state.compensation = settings.compensation;
    state.by = settings.keep === null ? "angle" : "keep";
    if (settings.low_deg !== null) state.angle = settings.low_deg;
    if (settings.keep !== null) state.keep = settings.keep;
    if (settings.rule === "pairwise") state.norm = settings.norm_std ?? 0;
    setControls();
    move();
  };

  // Twelve sizes along the curve; any change of the settings stops it.
  let sketching = null;
  const stopSketch = () => { sketching = null; $("sketch").textContent = "Draw the curve"; };
  $("sketch").addEventListener("click", async () => {
    if (sketching) { stopSketch(); return; }
    const mine = {};
    sketching = mine;
    $("sketch").textContent = "Stop";
    const base = settingsNow();
    const positions = groups()
      ? [4, 8, 16, 32, 64, 128, 256, 512, 1024, 1536, 2048, 3072].filter((keep) => keep < facts.num_units).map((keep) => ({ ...base, keep }))
      : Array.from({ length: 12 }, (_, k) => ({ ...base, keep: null, low_deg: 2 + 2 * k }));
    for (const settings of positions) {
      if (sketching !== mine) return;
      try {
        const found = await askCut(settings);
        if (sketching !== mine) return;
        remember(found, false);
      } catch (error) {
        problem(error.message);
        break;
      }
    }
    stopSketch();
    page.dataset.sketched = "true";
  });

  // Controls.
  const clamp = (value, low, high) => Math.min(high, Math.max(low, value));
  const on = (id, kind, act) => $(id).addEventListener(kind, () => { act(); setControls(); move(); });
  on("angle", "input", () => { state.by = "angle"; state.angle = Number($("angle").value); });
  on("norm", "input", () => { state.norm = Number($("norm").value); });
  on("keep", "input", () => { state.by = "keep"; state.keep = stops[Number($("keep").value)]; });
  const number = (id, act) => {
    on(id, "change", () => {
      const value = Number($(id).value);
      if ($(id).value !== "" && Number.isFinite(value)) act(value);
      $(id).blur();
    });
  };
  number("angle-number", (value) => { state.by = "angle"; state.angle = clamp(value, 0, 89); });
  number("norm-number", (value) => { state.norm = clamp(value, 0, 5); });
  number("keep-number", (value) => { state.by = "keep"; state.keep = clamp(Math.round(value), 1, facts.num_units); });
  on("compensation", "change", () => { state.compensation = $("compensation").value; });
  for (const box of document.querySelectorAll("input[name=rule]")) {
    box.addEventListener("change", () => {
      state.rule = box.value;
      if (groups()) { state.by = "keep"; state.keep = Math.min(state.keep, Math.min(facts.num_units, 256)); }
      setControls();
      move();
    });
  }

  takeImages(async (file) => {
    const settings = JSON.stringify(state.last.settings);
    const found = await post(`/picture?${query({ settings })}`, file, "application/octet-stream");
    state.pictureNumber = found.number;
    return found;
  });
  saveNetworks(async (name) => {
    const settings = JSON.stringify(state.last.settings);
    const found = await post(`/save?${query({ settings, name })}`, "", "application/json");
    return `Saved ${found.folder}: ${plural(found.num_kept, "unit")}, ${size(found.bytes)}, `
      + `validation accuracy ${percent(found.accuracy)} measured again.`;
  }, "Pruning, checking and saving…");

  // The first result is in the page.
  scheme.addEventListener("change", () => { drawMap(state.last.states, state.previous); drawTrail(state.last); });
  window.addEventListener("resize", () => drawMap(state.last.states, state.previous));
  $("keep").max = String(stops.length - 1);
  await loadPlotly();
  const first = read("first");
  follow(first);
  show(first);
  $("trail").on("plotly_click", (event) => {
    const settings = event.points[0]?.customdata;
    if (settings) goTo(JSON.parse(settings));
  });
  page.dataset.drawn = "true";
  page.dataset.moves = "0";
})();
