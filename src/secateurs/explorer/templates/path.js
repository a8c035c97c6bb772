// Shows the sizes that the server has computed by now, and moves between them without asking it.
(async () => {
  const POLL_MS = 1000;

  const ms = (value) => `${value.toFixed(value < 10 ? 2 : 1)} ms`;
  const interval = (one) => `${percent(one.accuracy)} (${percent(one.accuracy_low)} to ${percent(one.accuracy_high)})`;

  // The smallest size is at the left of the slider.
  let known = read("first");
  const commands = known.commands;
  const stops = known.positions.map((one) => one.share).sort((a, b) => a - b);
  const at = (share) => known.positions.find((one) => one.share === share);
  const unpruned = at(1);
  const state = { share: 1, axis: "bytes", picture: 0 };

  const say = (id, text, note) => {
    $(id).textContent = text;
    $(`${id}-note`).textContent = note;
  };
  const show = () => {
    const one = at(state.share);
    const ready = one.state === "ready";
    $("size").value = String(stops.indexOf(state.share));
    const words = { waiting: "not computed yet", running: "being computed", failed: one.reason };
    const name = state.share === 1 ? "unpruned" : percent(state.share, 0);
    $("size-value").textContent = ready ? name : `${name}: ${words[one.state]}`;
    $("size").setAttribute("aria-valuetext", $("size-value").textContent);
    $("command").textContent = commands[String(state.share)];
    $("recovered").hidden = state.share === 1;
    if (!$("name").dataset.own) {
      $("name").value = `${facts.backbone.replace(/[^A-Za-z0-9._-]/g, "-")}-macs${Math.round(100 * state.share)}`;
    }
    if (ready) {
      const part = (key) => `${percent(one[key] / unpruned[key], 0)} of the unpruned`;
      say("accuracy", percent(one.accuracy),
        `${against(one, unpruned)}; ${whole(one.num_changed)} of ${whole(one.num_images)} other answers`);
      say("bytes", size(one.bytes), part("bytes"));
      say("macs", count(one.macs), part("macs"));
      say("ms", ms(one.ms), part("ms"));
    } else {
      for (const id of ["accuracy", "bytes", "macs", "ms"]) say(id, "–", words[one.state]);
    }
    draw();
    announce(ready ? `${name}: validation accuracy ${percent(one.accuracy)}, ${size(one.bytes)}` : $("size-value").textContent);
    page.dataset.shown = `${state.share}:${one.state}`;
  };
  const report = () => {
    const now = known.step ? ` Now: ${known.step}.` : "";
    $("progress").textContent = known.failure
      ? `${known.failure}.`
      : known.done ? "All sizes are computed."
      : known.num_ready === 1 ? `The network is being measured on training images; its sizes follow.${now}`
      : `${known.num_ready} of ${known.positions.length} sizes are computed; the others follow in the background.${now}`;
  };
  const list = () => {
    report();
    $("stops").replaceChildren(...stops.map((share) => {
      const item = document.createElement("li");
      item.dataset.state = at(share).state;
      item.textContent = percent(share, 0);
      return item;
    }));
    $("sizes").replaceChildren(...known.positions.map((one) => tableRow(
      one.share === 1 ? "unpruned" : percent(one.share, 0),
      one.state === "ready"
        ? [interval(one), size(one.bytes), one.ms.toFixed(2), whole(one.num_changed)]
        : [one.reason ?? one.state, "", "", ""],
    )));
    page.dataset.ready = String(known.num_ready);
  };

  // The frontier.
  const KINDS = [
    ["probe", "frozen, head only", "square-open", MUTED],
    ["fine-tuned", "fine-tuned", "circle", "#0072B2"],
    ["pruned", "pruned, with recovery", "diamond", "#CC79A7"],
  ];
  const AXES = { bytes: ["file, MB", 1e6], macs: ["multiply-accumulates, M", 1e6], ms: ["time of one image, ms", 1] };
  const bars = (rows, colour) => ({
    type: "data", symmetric: false, thickness: 1.2, width: 3, color: colour,
    array: rows.map((one) => one.accuracy_high - one.accuracy),
    arrayminus: rows.map((one) => one.accuracy - one.accuracy_low),
  });
  const draw = () => {
    const [label, unit] = AXES[state.axis];
    const x = (one) => one[state.axis] / unit;
    const ready = known.positions.filter((one) => one.state === "ready");
    const data = KINDS.map(([kind, name, symbol, colour]) => {
      const rows = facts.networks.filter((one) => one.kind === kind);
      return {
        type: "scatter", mode: "markers", name, x: rows.map(x), y: rows.map((one) => one.accuracy),
        marker: { size: 10, symbol, color: colour }, error_y: bars(rows, colour), cliponaxis: false,
        customdata: rows.map((one) => `${isolated(one.name)}<br>${interval(one)}, ${size(one.bytes)}, ${ms(one.ms)}`),
        hovertemplate: "%{customdata}<extra></extra>", visible: rows.length > 0,
      };
    });
    data.push({
      type: "scatter", mode: "lines+markers", name: "sizes, no recovery", x: ready.map(x), y: ready.map((one) => one.accuracy),
      line: { color: "#D55E00", width: 1.6 }, marker: { size: 7, color: "#D55E00" }, cliponaxis: false,
      customdata: ready.map((one) => `${percent(one.share, 0)} of the multiply-accumulates<br>${interval(one)}, ${size(one.bytes)}, ${ms(one.ms)}`),
      hovertemplate: "%{customdata}<extra></extra>",
    });
    const best = facts.networks.find((one) => one.recommended);
    if (best) {
      data.push({ type: "scatter", mode: "markers", name: "recommended", x: [x(best)], y: [best.accuracy], hoverinfo: "skip", cliponaxis: false, marker: { size: 20, symbol: "circle-open", color: "#D55E00", line: { width: 2.5 } } });
    }
    const here = at(state.share);
    if (here.state === "ready") {
      data.push({ type: "scatter", mode: "markers", name: "shown", x: [x(here)], y: [here.accuracy], hoverinfo: "skip", cliponaxis: false, marker: { size: 14, symbol: "circle", color: "#D55E00", line: { color: SURFACE, width: 2 } } });
    }
    const shown = [...facts.networks, ...ready];
    const xs = shown.map(x);
    const low = Math.min(...shown.map((one) => one.accuracy_low)), high = Math.max(...shown.map((one) => one.accuracy_high));
    const ticks = [];
    for (let e = -4; e < 7; e += 1) for (const m of [1, 2, 5]) ticks.push(m * 10 ** e);
    drawChart("frontier", data, {
      xaxis: { type: "log", title: chartTitle(label), showgrid: false, range: [Math.log10(Math.min(...xs) / 1.2), Math.log10(Math.max(...xs) * 1.2)], tickvals: ticks, ticktext: ticks.map((tick) => String(Number(tick.toPrecision(1)))) },
      yaxis: { title: chartTitle("validation accuracy"), tickformat: ".0%", range: [Math.max(-0.02, low - 0.05), Math.min(1.02, high + 0.05)] },
      margin: { l: 8, r: 14, t: 44, b: 8 }, uirevision: state.axis,
    });
  };

  // Moves need no answer from the server; the predictions for an image do.
  const move = () => {
    const started = performance.now();
    show();
    page.dataset.moved = String(Number(page.dataset.moved ?? 0) + 1);
    page.dataset.took = (performance.now() - started).toFixed(1);
    if (state.picture && at(state.share).state === "ready") answer();
  };
  $("size").addEventListener("input", () => { state.share = stops[Number($("size").value)]; move(); });
  for (const box of document.querySelectorAll("input[name=axis]")) {
    box.addEventListener("change", () => { state.axis = box.value; draw(); });
  }

  // Pictures.
  let asking = false, again = false;
  const answer = async () => {
    if (asking) { again = true; return; }
    asking = true;
    do {
      again = false;
      try {
        const found = await ask(`/path/answers?${query({ share: state.share })}`);
        if (found.number === state.picture) showAnswers(found);
      } catch (error) {
        problem(error.message);
      }
    } while (again);
    asking = false;
  };
  takeImages(async (file) => {
    const share = at(state.share).state === "ready" ? state.share : 1;
    const found = await post(`/path/picture?${query({ share })}`, file, "application/octet-stream");
    state.picture = found.number;
    return found;
  });
  saveNetworks(async (name) => {
    const found = await post(`/path/save?${query({ share: state.share, name })}`, "", "application/json");
    return `Saved ${found.folder}: ${size(found.bytes)}, validation accuracy ${percent(found.accuracy)}.`;
  }, "Saving…");

  // The first state is in the page; new ones are asked for until all sizes are there.
  scheme.addEventListener("change", draw);
  await loadPlotly();
  list();
  show();
  page.dataset.drawn = "true";
  const poll = async () => {
    try {
      const found = await ask("/path/state");
      const sizes = (one) => JSON.stringify({ ...one, commands: undefined, step: undefined });
      const changed = sizes(found) !== sizes(known);
      known = found;
      if (changed) { list(); show(); } else report();
      if (known.done) return;
    } catch (error) {
      problem(error.message);
      return;
    }
    window.setTimeout(poll, POLL_MS);
  };
  poll();
})();
