// What both pages of `secateurs explore` share: numbers, requests, colours, images, saving.
const $ = (id) => document.getElementById(id);
const read = (id) => JSON.parse($(id).textContent);
const facts = read("facts");
const dark = new Map(Object.entries(read("dark")).map(([from, to]) => [from.toUpperCase(), to]));
const scheme = window.matchMedia("(prefers-color-scheme: dark)");
const coarse = window.matchMedia("(pointer: coarse)");
const page = document.documentElement;

// Numbers as the reports write them.
const whole = (value) => Math.round(value).toLocaleString("en-US");
const scaled = (value, units, base) => {
  let at = 0;
  while (value >= 999.5 && at < units.length - 1) { value /= base; at += 1; }
  const digits = at === 0 || value >= 99.95 ? 0 : value >= 9.995 ? 1 : 2;
  return `${value.toFixed(digits)} ${units[at]}`.trim();
};
const count = (value) => (value < 10000 ? whole(value) : scaled(value, ["", "k", "M", "G"], 1000));
const size = (value) => scaled(value, ["B", "kB", "MB", "GB"], 1000);
const percent = (value, digits = 1) => `${(100 * value).toFixed(digits)}%`;
// A name in a right-to-left script must not take the digits after it into its direction.
const isolated = (name) => `\u2068${name}\u2069`;

// How an accuracy differs from the unpruned network's, with its interval.
const against = (one, unpruned) => {
  const points = 100 * (one.accuracy - unpruned.accuracy);
  const sign = points > 0.05 ? "+" : points < -0.05 ? "−" : "±";
  return `${sign}${Math.abs(points).toFixed(1)} points; 95%: ${Math.round(100 * one.accuracy_low)}–${Math.round(100 * one.accuracy_high)}%`;
};
// What a screen reader says once the page stays as it is.
const announce = (text) => {
  window.clearTimeout(announce.timer);
  announce.timer = window.setTimeout(() => { $("said").textContent = text; }, 600);
};
// A row of a table: its head, then its cells.
const tableRow = (title, cells) => {
  const row = document.createElement("tr");
  const head = document.createElement("th");
  head.scope = "row";
  head.textContent = title;
  row.append(head);
  for (const text of cells) {
    const cell = document.createElement("td");
    cell.textContent = text;
    row.append(cell);
  }
  return row;
};

// Requests.
const problem = (text) => {
  $("problem").textContent = text ?? "";
  $("problem").hidden = !text;
};
const ask = async (path, options = {}) => {
  let response;
  try {
    response = await fetch(path, options);
  } catch {
    throw new Error("The server does not respond. Start `secateurs explore` again.");
  }
  const found = await response.json().catch(() => ({ error: `The server failed (${response.status}).` }));
  if (!response.ok) throw new Error(found.error);
  return found;
};
const post = (path, body, kind) => ask(path, { method: "POST", body, headers: { "Content-Type": kind } });
const query = (values) => new URLSearchParams(values).toString();

// Charts: in the light colours, which a table maps to the dark ones.
const INK = "#1F262D", MUTED = "#5B6670", FAINT = "#B9C1C9", GRID = "#E4E7EA", SURFACE = "#FFFFFF";
const recolour = (value) => {
  if (typeof value === "string") return dark.get(value.toUpperCase()) ?? value;
  if (Array.isArray(value)) return value.map(recolour);
  if (value && typeof value === "object") {
    return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, recolour(item)]));
  }
  return value;
};
const chartTitle = (text) => ({ text, font: { color: MUTED, size: 13 }, standoff: 8 });
const drawChart = (id, data, layout) => {
  const axis = { automargin: true, gridcolor: GRID, linecolor: FAINT, zeroline: false, tickfont: { color: MUTED }, ticks: "", fixedrange: coarse.matches };
  const full = {
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    font: { family: 'system-ui, -apple-system, "Segoe UI", Roboto, sans-serif', size: 13, color: INK },
    margin: { l: 8, r: 14, t: 34, b: 8 }, showlegend: true,
    legend: { orientation: "h", x: 0, y: 1.02, yanchor: "bottom", font: { color: INK } },
    hoverlabel: { bgcolor: SURFACE, bordercolor: FAINT, font: { color: INK }, align: "left" },
    dragmode: coarse.matches ? false : "zoom",
    ...layout,
    xaxis: { ...axis, ...layout.xaxis },
    yaxis: { ...axis, ...layout.yaxis },
  };
  const [traces, look] = scheme.matches ? [recolour(data), recolour(full)] : [data, full];
  Plotly.react(id, traces, look, { displayModeBar: false, responsive: true });
};

// An image: the answers of both networks. `send` gives the server's answer for a file.
const showAnswers = (found) => {
  for (const which of ["before", "after"]) {
    $(`bars-${which}`).replaceChildren(...found[which].map((one) => {
      const item = document.createElement("li");
      const said = document.createElement("div");
      said.className = "said";
      const label = document.createElement("span");
      label.textContent = isolated(one.label);
      const value = document.createElement("b");
      value.textContent = percent(one.probability);
      said.append(label, value);
      const rail = document.createElement("div");
      rail.className = "rail-bar";
      const bar = document.createElement("span");
      bar.style.width = percent(one.probability);
      rail.append(bar);
      item.append(said, rail);
      return item;
    }));
  }
  $("verdict").textContent = found.agree
    ? `Both networks predict ${isolated(found.before[0].label)}.`
    : `The predictions differ: ${isolated(found.before[0].label)} unpruned, ${isolated(found.after[0].label)} pruned.`;
};
const takeImages = (send) => {
  const take = async (file) => {
    if (!file) return;
    try {
      const found = await send(file);
      problem();
      $("seen").src = found.seen;
      $("seen").alt = `${isolated(file.name)}, as the input of the networks`;
      $("asked").hidden = false;
      showAnswers(found);
      page.dataset.pictures = String(found.number);
    } catch (error) {
      problem(`${isolated(file.name)}: ${error.message}`);
    }
  };
  $("file").addEventListener("change", () => take($("file").files[0]));
  let inside = 0;
  const dragged = (change) => { inside = Math.max(0, change); page.classList.toggle("dropping", inside > 0); };
  document.addEventListener("dragenter", (event) => { event.preventDefault(); dragged(inside + 1); });
  document.addEventListener("dragleave", () => dragged(inside - 1));
  document.addEventListener("dragover", (event) => event.preventDefault());
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    dragged(0);
    const file = event.dataTransfer?.files[0];
    if (file) take(file); else problem("Drop an image file from your computer.");
  });
};

// Saving and copying. `send` saves the network shown under a name and gives what to say of it.
const saveNetworks = (send, waiting) => {
  $("name").addEventListener("input", () => { $("name").dataset.own = $("name").value === "" ? "" : "1"; });
  $("save").addEventListener("submit", async (event) => {
    event.preventDefault();
    const button = $("save").querySelector("button");
    button.disabled = true;
    $("saved").textContent = waiting;
    try {
      const text = await send($("name").value);
      problem();
      $("saved").textContent = text;
      delete $("name").dataset.own;
    } catch (error) {
      $("saved").textContent = `Not saved. ${error.message}`;
    }
    button.disabled = false;
  });
  $("copy").addEventListener("click", async () => {
    await navigator.clipboard.writeText($("command").textContent);
    $("copy").textContent = "Copied";
    window.setTimeout(() => { $("copy").textContent = "Copy"; }, 1500);
  });
};
