const $ = (id) => document.getElementById(id);
const page = document.documentElement;
const models = JSON.parse($("models").textContent);
const MAX_PIXELS = 89478485; // as Secateurs, whose limit is Pillow's
const SHOWN = 5; // classes per answer
const THUMB = 400; // pixels
const percent = (share) => `${(100 * share).toFixed(1)}%`;
const plural = (count, word) => `${count} ${word}${count === 1 ? "" : "s"}`;
const made = (name, kind, text) => {
  const element = document.createElement(name);
  if (kind) element.className = kind;
  if (text !== undefined) element.textContent = text;
  return element;
};
const complain = (text, command) => {
  $("problem").replaceChildren(text);
  if (command) $("problem").append(made("pre", "", command));
  $("problem").hidden = false;
};
const serverLine = document.querySelector("#server code").textContent;

// The files: in the page itself, gzip in base64, or beside it.
const inPage = async (element) => {
  const letters = atob(element.textContent);
  element.remove();
  const bytes = new Uint8Array(letters.length);
  for (let k = 0; k < letters.length; k += 1) bytes[k] = letters.charCodeAt(k);
  const plain = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(plain).arrayBuffer());
};
const bytesOf = async (name) => {
  const element = $(`file-${name}`);
  if (element) return inPage(element);
  const answer = await fetch(name);
  if (!answer.ok) throw new Error(`${name}: ${answer.status}`);
  return new Uint8Array(await answer.arrayBuffer());
};

const open = async () => {
  if (!globalThis.WebAssembly) throw new Error("this browser has no WebAssembly");
  const { ort } = globalThis;
  ort.env.logLevel = "error";
  ort.env.wasm.numThreads = 1;
  ort.env.wasm.proxy = false;
  ort.env.wasm.wasmBinary = await bytesOf("runtime.wasm");
  for (const model of models) {
    model.session = await ort.InferenceSession.create(await bytesOf(model.file), {
      executionProviders: ["wasm"],
    });
    await run(model, new Float32Array(3 * model.preprocessing.size ** 2)); // the first is slow
  }
};

const run = async (model, input) => {
  const { session, preprocessing: { size } } = model;
  const images = new globalThis.ort.Tensor("float32", input, [1, 3, size, size]);
  const found = await session.run({ [session.inputNames[0]]: images });
  return found[session.outputNames[0]].data;
};

const softmax = (logits, temperature) => {
  const scaled = Array.from(logits, (value) => value / temperature);
  const most = Math.max(...scaled);
  const raised = scaled.map((value) => Math.exp(value - most));
  const sum = raised.reduce((a, b) => a + b, 0);
  return raised.map((value) => value / sum);
};

// Images. A bitmap is upright after EXIF; colour profiles are not applied, as in training.
const decoded = async (file) => {
  let bitmap;
  try {
    bitmap = await createImageBitmap(file, {
      imageOrientation: "from-image", colorSpaceConversion: "none", premultiplyAlpha: "none",
    });
  } catch (error) {
    throw new Error(file.size === 0 ? "the file is empty" : "not an image that this browser reads");
  }
  if (bitmap.width * bitmap.height > MAX_PIXELS) {
    const size = `${bitmap.width} × ${bitmap.height}`;
    bitmap.close();
    throw new Error(`${size} pixels are more than the limit of ${MAX_PIXELS}`);
  }
  return bitmap;
};
const strip = new OffscreenCanvas(1, 1);
const reader = (source) => (left, top, width, height) => {
  if (strip.width !== width || strip.height < height) {
    strip.width = width;
    strip.height = height;
  }
  const paint = strip.getContext("2d", { willReadFrequently: true });
  paint.fillStyle = "#fff"; // below what is transparent
  paint.fillRect(0, 0, width, height);
  paint.drawImage(source, left, top, width, height, 0, 0, width, height);
  return paint.getImageData(0, 0, width, height).data;
};

// The answers of every model for a picture, which may be a bitmap or the frame of a video.
let turn = Promise.resolve(); // one at a time: the networks share one program
const classify = (source, width, height) => {
  const next = turn.then(async () => {
    const answers = [];
    for (const model of models) {
      const pixels = seenBy(width, height, reader(source), model.preprocessing);
      const input = normalised(pixels, model.preprocessing);
      const begun = performance.now();
      const logits = await run(model, input);
      const milliseconds = performance.now() - begun;
      if (!logits.every(Number.isFinite)) throw new Error("the network's output is not finite");
      const probabilities = softmax(logits, model.temperature);
      const order = [...probabilities.keys()].sort((a, b) => probabilities[b] - probabilities[a]);
      const unsure = model.threshold !== null && probabilities[order[0]] < model.threshold;
      answers.push({ probabilities, order, unsure, milliseconds, label: model.classes[order[0]] });
    }
    return answers;
  });
  turn = next.catch(() => {});
  return next;
};

// Showing.
const shownAnswers = (target, answers) => {
  target.classList.toggle("pair", answers.length > 1);
  target.replaceChildren(...answers.map((answer, place) => {
    const model = models[place];
    const part = made("div", "answer");
    if (models.length > 1) part.append(made("h3", "which", model.title));
    const verdict = made("p", `verdict${answer.unsure ? " unsure" : ""}`,
      answer.unsure ? "Don’t know" : answer.label);
    if (answer.unsure) {
      verdict.append(made("small", "", `${answer.label} at ${percent(answer.probabilities[answer.order[0]])} is below ${percent(model.threshold)}`));
    }
    const bars = made("ol", "bars");
    for (const index of answer.order.slice(0, SHOWN)) {
      const line = made("li");
      const said = made("div", "said");
      said.append(made("bdi", "", model.classes[index]), made("b", "", percent(answer.probabilities[index])));
      const rail = made("span", "rail");
      const bar = made("i");
      bar.style.width = `${100 * answer.probabilities[index]}%`;
      rail.append(bar);
      line.append(said, rail);
      bars.append(line);
    }
    part.append(verdict, bars, made("p", "took", `${answer.milliseconds.toFixed(answer.milliseconds < 10 ? 1 : 0)} ms`));
    return part;
  }));
  if (answers.length > 1) {
    target.append(made("p", "agree", verdictsOf(answers)));
  }
};
const same = (answers) => answers[0].unsure === answers[1].unsure
  && (answers[0].unsure || answers[0].label === answers[1].label);
const verdictsOf = (answers) => (same(answers) ? "Both models say the same." : "The models differ.");

const median = (values) => [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)];
const seen = [];
const summarise = () => {
  $("results").hidden = $("cards").children.length === 0;
  const parts = [plural(seen.length, "image")];
  if (models.length > 1 && seen.length) {
    parts.push(`the models agree on ${seen.filter(same).length}`);
    const middle = models.map((_, k) => median(seen.map((answers) => answers[k].milliseconds)));
    parts.push(`median time: ${middle.map((value, k) => `${models[k].title} ${value.toFixed(1)} ms`).join(", ")}`);
  }
  const unsure = seen.filter((answers) => answers.at(-1).unsure).length;
  if (unsure) parts.push(`don’t know: ${unsure}`);
  $("summary").textContent = parts.join("; ");
};

const thumbnail = (source, width, height) => {
  const canvas = made("canvas");
  const scale = Math.min(1, THUMB / Math.max(width, height));
  canvas.width = Math.max(1, Math.round(width * scale));
  canvas.height = Math.max(1, Math.round(height * scale));
  canvas.getContext("2d").drawImage(source, 0, 0, canvas.width, canvas.height);
  return canvas;
};

const addCard = (name) => {
  const card = made("li", "card");
  const asked = made("div", "asked");
  const view = made("div", "view");
  const answers = made("div", "answers");
  answers.append(made("p", "took", "Reading…"));
  view.append(made("p", "name", name));
  asked.append(view, answers);
  card.append(asked);
  $("cards").prepend(card);
  $("results").hidden = false;
  return { card, view, answers };
};

const add = async (source, width, height, name) => {
  const { card, view, answers } = addCard(name);
  try {
    const picture = typeof source === "function" ? await source() : source;
    const size = [width ?? picture.width, height ?? picture.height];
    const canvas = thumbnail(picture, ...size);
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", name);
    view.prepend(canvas);
    const found = await classify(picture, ...size);
    picture.close?.();
    seen.push(found);
    shownAnswers(answers, found);
    card.dataset.answers = JSON.stringify(found);
    $("status").textContent = `${name}: ${found.at(-1).unsure ? "don’t know" : found.at(-1).label}`;
  } catch (error) {
    answers.replaceChildren(made("p", "failed", `Cannot be used: ${error.message}`));
    card.dataset.failed = error.message;
    $("status").textContent = `${name}: ${error.message}`;
  }
  summarise();
};
const addFiles = async (files) => {
  for (const file of files) await add(() => decoded(file), undefined, undefined, file.name || "pasted image");
  page.dataset.added = String(Number(page.dataset.added ?? 0) + 1);
};

// The camera.
const camera = { stream: null, facing: "environment" };
const stopCamera = () => {
  camera.stream?.getTracks().forEach((track) => track.stop());
  camera.stream = null;
  $("video").srcObject = null;
  $("live").hidden = true;
};
const look = async (stream) => {
  const video = $("video");
  while (camera.stream === stream) {
    if (video.readyState >= 2 && video.videoWidth) {
      try {
        const frame = await createImageBitmap(video); // the film goes on while it is read
        const answers = await classify(frame, frame.width, frame.height);
        frame.close();
        if (camera.stream !== stream) return;
        shownAnswers($("live-answers"), answers);
        $("live").dataset.answers = JSON.stringify(answers);
      } catch (error) {
        complain(error.message);
        return;
      }
    }
    await new Promise((go) => { setTimeout(go, 120); });
  }
};
const startCamera = async () => {
  stopCamera();
  const video = { facingMode: camera.facing, width: { ideal: 1280 } };
  try {
    if (!navigator.mediaDevices) throw new Error("this browser gives the camera only to pages from a server");
    camera.stream = await navigator.mediaDevices.getUserMedia({ video, audio: false });
  } catch (error) {
    complain(`No camera (${error.message}). If the browser forbids it to a file, serve the page:`, serverLine);
    return;
  }
  $("problem").hidden = true;
  $("live").hidden = false;
  $("video").srcObject = camera.stream;
  await $("video").play();
  const cameras = (await navigator.mediaDevices.enumerateDevices()).filter((device) => device.kind === "videoinput");
  $("turn").hidden = cameras.length < 2;
  look(camera.stream);
};

// Where the browser alters what a canvas gives, which protects against fingerprints, say so.
const alteredPixels = () => {
  const canvas = new OffscreenCanvas(16, 16);
  const paint = canvas.getContext("2d", { willReadFrequently: true });
  const given = paint.createImageData(16, 16);
  for (let k = 0; k < given.data.length; k += 1) given.data[k] = k % 4 === 3 ? 255 : (k * 37) % 256;
  paint.putImageData(given, 0, 0);
  const read = paint.getImageData(0, 0, 16, 16).data;
  return read.some((value, k) => value !== given.data[k]);
};

const listen = () => {
  $("file").disabled = false;
  $("camera").disabled = false;
  $("file").addEventListener("change", () => { addFiles([...$("file").files]); $("file").value = ""; });
  $("camera").addEventListener("click", startCamera);
  $("stop").addEventListener("click", () => { stopCamera(); $("camera").focus(); });
  $("turn").addEventListener("click", () => {
    camera.facing = camera.facing === "user" ? "environment" : "user";
    startCamera();
  });
  $("keep").addEventListener("click", async () => {
    const video = $("video");
    const frame = await createImageBitmap(video);
    add(frame, frame.width, frame.height, `camera, ${new Date().toLocaleTimeString()}`);
  });
  $("clear").addEventListener("click", () => {
    seen.length = 0;
    $("cards").replaceChildren();
    summarise();
    $("status").textContent = "Cleared.";
    $("file").focus();
  });
  let depth = 0; // of elements that something is dragged over
  const dragging = (change) => {
    depth = Math.max(0, depth + change);
    document.body.classList.toggle("dropping", depth > 0);
  };
  document.addEventListener("dragenter", (event) => { event.preventDefault(); dragging(1); });
  document.addEventListener("dragleave", () => dragging(-1));
  document.addEventListener("dragover", (event) => event.preventDefault());
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    dragging(-depth);
    addFiles([...event.dataTransfer.files]);
  });
  document.addEventListener("paste", (event) => {
    const files = [...(event.clipboardData?.files ?? [])];
    if (files.length) addFiles(files);
  });
};

try {
  await open();
  listen();
  if (alteredPixels()) {
    complain("This browser changes the pixels that pages read, as a protection against fingerprints: answers can differ from those of the model.");
  }
  $("status").textContent = "Ready.";
  page.dataset.ready = "";
} catch (error) {
  $("status").textContent = "";
  if (location.protocol === "file:" && document.querySelector("#server[open]")) {
    complain("This folder works only from a server. Start one with this line:", serverLine);
  } else {
    complain(`The model cannot be started: ${error.message}`);
  }
  page.dataset.failed = error.message;
}
