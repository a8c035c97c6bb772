"use strict";
// Plotly is in the page as gzip in base64, a third of its size. The page's policy allows the script
// that it unpacks to, by its hash, and no other.
const loadPlotly = async () => {
  const packed = document.getElementById("plotly").textContent;
  const bytes = Uint8Array.from(atob(packed), (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  const script = document.createElement("script");
  script.textContent = await new Response(stream).text();
  document.head.append(script);
};
